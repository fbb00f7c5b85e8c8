"""The API reference: a page for every module of minicoil/, with every name of its `__all__`, read from the source text alone."""
import ast
import re

DEFAULT = re.compile(r"typer\.(Option|Argument)")


def literal(text):
    """`text` as Markdown that shows it as it is, save for `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_\[\]<>#|~$@])", r"\\\1", p) for p in parts)


def comments(source, node):
    """{line number: comment} of the lines of a node."""
    lines = source.split("\n")[node.lineno - 1 : node.end_lineno]
    found = {n: re.search(r"\s# ([^\"']*)$", line) for n, line in enumerate(lines, node.lineno)}
    return {n: m[1].strip() for n, m in found.items() if m}


def asked(default):
    """(default as source, help) of an option of the command line, or None."""
    if isinstance(default, ast.Call) and DEFAULT.match(ast.unparse(default.func)):
        said = [k.value.value if isinstance(k.value, ast.Constant) else ast.unparse(k.value) for k in default.keywords if k.arg == "help"]
        return ast.unparse(default.args[0]) if default.args else "...", said[0] if said else ""
    return None


def signature(node, skip_first=False):
    """(the arguments as text, [(name, what is said about it)]) of a function."""
    a, said = node.args, []
    named = a.posonlyargs + a.args
    for argument, default in [*zip(named[len(named) - len(a.defaults) :], a.defaults), *zip(a.kwonlyargs, a.kw_defaults)]:
        if option := asked(default):
            said.append((argument.arg, option[1]))
            for values in (a.defaults, a.kw_defaults):
                if default in values:
                    values[values.index(default)] = ast.parse(option[0], mode="eval").body
        argument.annotation = None
    if skip_first and named:
        a = ast.arguments(posonlyargs=a.posonlyargs, args=a.args[1:], vararg=a.vararg, kwonlyargs=a.kwonlyargs, kw_defaults=a.kw_defaults, kwarg=a.kwarg, defaults=a.defaults)
    return ast.unparse(a), said


def function_entry(source, node, prefix, kind="function"):
    """A function or method as an object of Sphinx's Python domain."""
    notes = comments(source, node)
    by_line = {arg.lineno: arg.arg for arg in node.args.args + node.args.kwonlyargs}
    decorators = {ast.unparse(d) for d in node.decorator_list}
    member = kind == "method"
    arguments, said = signature(node, member and "staticmethod" not in decorators)
    said = said or [(by_line[n], note) for n, note in notes.items() if n in by_line]
    body = [literal(ast.get_docstring(node) or ""), *(f"* `{name}`: {literal(note)}" for name, note in said if note)]
    if "property" in decorators:
        return entry("property", f"{prefix}.{node.name}", body)
    return entry(kind, f"{prefix}.{node.name}({arguments})", body, ":classmethod:\n" if "classmethod" in decorators else "")


def entry(kind, heading, body, options="", fence=":::"):
    """One object of the Python domain."""
    return f"{fence}{{py:{kind}}} {heading}\n{options}\n" + "\n\n".join(b for b in body if b) + f"\n{fence}\n"


def class_entry(source, node, prefix):
    """A class with its fields and public methods."""
    notes, name = comments(source, node), f"{prefix}.{node.name}"
    fields = [f"* `{f.target.id}`" + (f" = `{ast.unparse(f.value)}`" if f.value else "") + (f": {literal(notes[f.lineno])}" if f.lineno in notes else "")
              for f in node.body if isinstance(f, ast.AnnAssign)]
    methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
    parts = [literal(ast.get_docstring(node) or ""), "\n".join(fields)]
    return entry("class", name, parts, fence="::::") + "\n" + "\n".join(function_entry(source, m, name, "method") for m in methods)


def value_entry(node, name, prefix):
    """A constant, its value cut short."""
    value = node.value
    for target in getattr(node, "targets", []):   # a, b = 1, 2
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            value = value.elts[[t.id for t in target.elts].index(name)]
    text = " ".join(ast.unparse(value).split())
    text = text if len(text) <= 160 else text[:157] + "…"
    return entry("data", f"{prefix}.{name}", [f"`` {text} ``" if "`" in text else f"`{text}`"])


def dotted_name(path):
    """`minicoil.runs.files` of the path of a module: folders above it that hold an `__init__.py` are packages."""
    names = [path.stem]
    while (path.parent / "__init__.py").exists():
        path = path.parent
        names.insert(0, path.name)
    return ".".join(names)


def module_page(path):
    """(title, summary, page) of a module."""
    source = path.read_text(encoding="utf-8")
    tree, prefix = ast.parse(source), dotted_name(path)
    found, public, chapter = {}, [], re.search(r"File to edit: \.\./nbs/(\w+)\.ipynb", source)
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            for target in [n for t in node.targets for n in (t.elts if isinstance(t, ast.Tuple) else [t]) if isinstance(n, ast.Name)]:
                found[target.id] = node
                if target.id == "__all__" and isinstance(node.value, ast.List):
                    public = ast.literal_eval(node.value)
    parts = [f"# {prefix}", literal(ast.get_docstring(tree) or "")]
    parts += [f"The chapter [](../{chapter[1]}.ipynb) builds and explains it."] if chapter else []
    for name in sorted(set(public) & set(found), key=lambda n: (found[n].lineno, n)):
        node = found[name]
        parts.append(function_entry(source, node, prefix) if isinstance(node, ast.FunctionDef) else
                     class_entry(source, node, prefix) if isinstance(node, ast.ClassDef) else value_entry(node, name, prefix))
    return prefix, ast.get_docstring(tree) or "", "\n\n".join(parts) + "\n", public


def reference_pages(package):
    """{page name: Markdown} of the whole reference."""
    pages, rows = {}, []
    for path in sorted(package.rglob("[a-z]*.py")):
        prefix, summary, page, public = module_page(path)
        pages[prefix.removeprefix("minicoil.")] = page
        rows.append(f"* [{prefix}]({prefix.removeprefix('minicoil.')}.md): {literal(summary)}" )
    homes = ast.literal_eval(re.search(r"_HOMES = (\{.*?\})", (package / "__init__.py").read_text(encoding="utf-8"), re.S)[1])
    lead = "\n".join(f"* {{py:obj}}`minicoil.{name} <minicoil.{home}.{name}>`" for name, home in homes.items())
    names = "\n".join(path for path in pages)
    pages["index"] = (f"# Reference\n\nWhat `from minicoil import …` offers:\n\n{lead}\n\nEverything else, by module:\n\n" + "\n".join(rows)
                      + f"\n\n:::{{toctree}}\n:hidden:\n\n{names}\n:::\n")
    return pages
