// A miniCOIL model directory on Node: its files and ONNX Runtime for the reader in format.mjs
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ort from "onnxruntime-node";
import { normalize, Reader as Format } from "./format.mjs";

export { normalize };

// The encoders: a .npy file, or int8 numbers and scales; `row(id)` is hidden × dim
function readNpy(path) {
  const bytes = readFileSync(path), length = bytes.readUInt16LE(8), header = bytes.toString("latin1", 10, 10 + length);
  const shape = /'shape': \(([\d, ]+)\)/.exec(header)[1].split(",").filter((n) => n.trim()).map(Number);
  const data = bytes.buffer.slice(bytes.byteOffset + 10 + length, bytes.byteOffset + bytes.length);
  return { shape, data: header.includes("|i1") ? new Int8Array(data) : new Float32Array(data) };
}

function readEncoders(folder, precision) {
  if (precision !== "int8") {
    const { shape, data } = readNpy(join(folder, "minicoil.triplet.model.npy")), size = shape[1] * shape[2];
    return { dim: shape[2], row: (id) => data.subarray(id * size, (id + 1) * size) };
  }
  const { shape, data } = readNpy(join(folder, "minicoil.int8.npy")), size = shape[1] * shape[2], dim = shape[2];
  const scales = readNpy(join(folder, "minicoil.int8.scales.npy")).data;
  const row = (id) => Float32Array.from(data.subarray(id * size, (id + 1) * size), (x, i) => x * scales[id * dim + (i % dim)]);
  return { dim, row };
}

export class Reader extends Format {
  static async open(folder, { precision = "float32", ...bm25 } = {}) {
    const file = (name) => (existsSync(join(folder, name)) ? readFileSync(join(folder, name), "utf8") : undefined);
    const session = await ort.InferenceSession.create(join(folder, "onnx", "model.onnx"));
    return new Reader({ file, encoders: readEncoders(folder, precision), ort, session, ...bm25 });
  }
}
