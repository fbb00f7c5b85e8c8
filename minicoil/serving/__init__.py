"""A finished model: sparse vectors, one pass over texts of any number and length, the model directory,
explanations, `MiniCOIL` itself, and its form in sentence-transformers. May import from text and runs,
and needs no torch until a function asks for it."""
