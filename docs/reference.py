"""The API reference, read from the source text alone.

A page for every module of minicoil/, with every name of its `__all__`: typed signatures, and docstrings in
Google's style with their Args, Returns, Raises and examples. The index groups the modules by package."""
import ast
import copy
import inspect
import re
from pathlib import Path
from typing import NamedTuple

# The packages, lowest first: each imports only from those before it.
FLOORS = ("runs", "text", "serving", "learning", "stages", "retrieval", "pictures", "commands")
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
OPTION = re.compile(r"typer\.(Option|Argument)")
SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Examples?|Notes?|Source):[ \t]*(\S.*)?")


class ModulePage(NamedTuple):
    """What the reference says of a module."""
    name: str           # minicoil.package.module
    summary: str        # its docstring
    text: str           # Markdown
    public: list[str]   # the names of its `__all__`


# Text into Markdown

def literal(text):
    """`text` as Markdown that shows it as it is, save for `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_\[\]<>#|~$@])", r"\\\1", p) for p in parts)


def code(text):
    """`text` as inline code, whatever it holds."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def entry(kind, heading, body, options="", fence=":::"):
    """One object of Sphinx's Python domain."""
    text = "\n\n".join(part for part in body if part)
    return f"{fence}{{py:{kind}}} {heading}\n{options}\n{text}\n{fence}\n"


# Docstrings

def sections(docstring):
    """[(title or "", text)] of a docstring in Google's style; the first has no title."""
    found = [("", [])]
    for line in inspect.cleandoc(docstring).split("\n"):
        head = SECTION.fullmatch(line)
        if head:
            found.append((head[1], [head[2]] if head[2] else []))
        else:
            found[-1][1].append(line)
    return [(title, inspect.cleandoc("\n".join(lines))) for title, lines in found]


def items(text):
    """[(name, what is said of it)] of the lines `name: text`; lines that are indented go on."""
    found = []
    for line in text.split("\n"):
        named = re.match(r"(\*{0,2}[\w.]+(?: \([^)]*\))?):\s+(.*)", line)
        if named and not line.startswith(" "):
            found.append([named[1], named[2]])
        elif found:
            found[-1][1] += " " + line.strip()
    return [(name, said.strip()) for name, said in found]


def listed(pairs):
    """(name, text) pairs as a Markdown list; a name without text stands alone."""
    return "\n".join(f"* {code(name)}" + (f": {literal(said)}" if said else "") for name, said in pairs)


def paragraphs(text):
    """Text with its examples as code: paragraphs that begin with `>>>` are what one types and sees."""
    parts = [part for part in re.split(r"\n\s*\n", text) if part.strip()]
    return "\n\n".join(example(part) if part.lstrip().startswith(">>>") else literal(part) for part in parts)


def example(text):
    """A doctest as a block of code."""
    return f"```pycon\n{inspect.cleandoc(text)}\n```"


def documented(docstring, notes=()):
    """Markdown parts of a docstring; `notes` are (argument, text) said elsewhere than in its Args."""
    parts = []
    for title, text in sections(docstring or ""):
        pairs = items(text) if title in ("Args", "Raises") else []
        if title == "Attributes":   # stands with the fields
            continue
        if not title:
            parts += [paragraphs(text)]
        elif pairs:
            parts += [f"**{title}**", listed(pairs)]
        else:
            parts += [f"**{title}**", paragraphs(text)]
    if notes and "**Args**" not in parts:
        parts += ["**Args**", listed(notes)]
    return parts


# Signatures

class Full(ast.NodeTransformer):
    """Writes the package's own types with their whole names, to be linked; shown is the last part."""

    def __init__(self, homes):
        self.homes = homes

    def visit_Name(self, node):
        home = self.homes.get(node.id)
        return ast.parse(f"~{home}", mode="eval").body if home else node

    def visit_Constant(self, node):
        if isinstance(node.value, str):   # a type that is written as text, because it is defined further down
            return self.visit(ast.parse(node.value, mode="eval").body)
        return node


def types_of(tree, module):
    """{name: whole name} of the package's types that a module defines or imports."""
    own = [name for node in tree.body for name in assigned(node) if name[0].isupper()]
    found = {name: f"{module}.{name}" for name in own}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.startswith("minicoil"):
                found |= {a.asname or a.name: f"{source}.{a.name}" for a in node.names if a.name[0].isupper()}
    return found


def annotated(node, homes):
    """A type as text, or nothing."""
    return ast.unparse(Full(homes).visit(copy.deepcopy(node))) if node else ""


def option_of(default):
    """(default, help) of an option of the command line, or None."""
    if not isinstance(default, ast.Call) or not OPTION.match(ast.unparse(default.func)):
        return None
    said = [k.value.value if isinstance(k.value, ast.Constant) else ast.unparse(k.value)
            for k in default.keywords if k.arg == "help"]
    return default.args[0] if default.args else ast.Constant(...), said[0] if said else ""


def without_options(arguments):
    """[(name, help)] of the command line's options among the arguments, whose defaults become plain ones."""
    named, said = arguments.posonlyargs + arguments.args, []
    for names, defaults in ((named[len(named) - len(arguments.defaults):], arguments.defaults),
                            (arguments.kwonlyargs, arguments.kw_defaults)):
        for i, (name, default) in enumerate(zip(names, defaults)):
            option = option_of(default)
            if option:
                defaults[i] = option[0]
                said.append((name.arg, option[1]))
    return said


def signature(node, homes, skip_first=False):
    """(the signature as text, [(option, help)]) of a function; `skip_first` leaves out self."""
    arguments = copy.deepcopy(node.args)
    said = without_options(arguments)
    for argument in ast.walk(arguments):
        if isinstance(argument, ast.arg) and argument.annotation:
            argument.annotation = Full(homes).visit(argument.annotation)
    if skip_first:
        first = arguments.posonlyargs or arguments.args
        del first[:1]
    returns = f" -> {annotated(node.returns, homes)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}", said


# Entries

def comments(source, node):
    """{line number: comment} of the lines of a node."""
    lines = source.split("\n")[node.lineno - 1 : node.end_lineno]
    found = {n: re.search(r"\s# ([^\"']*)$", line) for n, line in enumerate(lines, node.lineno)}
    return {n: m[1].strip() for n, m in found.items() if m}


def beside(source, node):
    """[(argument, comment)] of the comments that stand beside a function's arguments."""
    notes = comments(source, node)
    return [(a.arg, notes[a.lineno]) for a in node.args.args + node.args.kwonlyargs if a.lineno in notes]


def function_entry(source, node, prefix, homes, method=False):
    """A function or method as an object of Sphinx's Python domain."""
    decorators = {ast.unparse(d) for d in node.decorator_list}
    text, said = signature(node, homes, method and "staticmethod" not in decorators)
    body = documented(ast.get_docstring(node), said or beside(source, node))
    if "property" in decorators:
        kind = annotated(node.returns, homes)
        return entry("property", f"{prefix}.{node.name}", body, f":type: {kind}\n" if kind else "")
    options = "".join(f":{name}:\n" for name in ("classmethod", "staticmethod") if name in decorators)
    options += ":async:\n" if isinstance(node, ast.AsyncFunctionDef) else ""
    return entry("method" if method else "function", f"{prefix}.{node.name}{text}", body, options)


def default_of(field):
    """The default of a dataclass's field as text: a list is made by its factory."""
    text = ast.unparse(field.value)
    factory = re.fullmatch(r"(?:dataclasses\.)?field\(default_factory=(\w+)\)", text)
    return f"{factory[1]}()" if factory else text


def field_line(field, said):
    """A field of a class as an item of a list; `said` is what is said about it."""
    text = f"* {code(field.target.id)} ({code(ast.unparse(field.annotation))})"
    text += f" = {code(default_of(field))}" if field.value else ""
    return f"{text}: {literal(said)}" if said else text


def class_entry(source, node, prefix, homes):
    """A class with its fields and public methods."""
    notes, name = comments(source, node), f"{prefix}.{node.name}"
    given = dict(sections(ast.get_docstring(node) or "")).get("Attributes", "")
    described = dict(items(given))
    fields = [f for f in node.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]
    lines = [field_line(f, described.pop(f.target.id, notes.get(f.lineno, ""))) for f in fields]
    methods = [m for m in node.body if isinstance(m, FUNCTIONS) and not m.name.startswith("_")]
    rest = listed(described.items())   # attributes that are set elsewhere
    parts = [*documented(ast.get_docstring(node)), "\n".join(filter(None, [*lines, rest]))]
    members = [function_entry(source, m, name, homes, method=True) for m in methods]
    return entry("class", name, parts, fence="::::") + "\n" + "\n".join(members)


def value_of(node, name):
    """The value that a statement gives a name: `a, b = 1, 2` gives each its own."""
    for target in getattr(node, "targets", []):
        pair = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
        if pair and len(target.elts) == len(node.value.elts):
            return node.value.elts[[t.id for t in target.elts].index(name)]
    return node.value


def value_entry(node, name, prefix):
    """A constant, its value cut short."""
    text = " ".join(ast.unparse(value_of(node, name)).split())
    return entry("data", f"{prefix}.{name}", [code(text if len(text) <= 160 else text[:157] + "…")])


# Pages

def dotted_name(path):
    """`minicoil.runs.files` of the path of a module: folders above it with an `__init__.py` are packages."""
    names = [path.stem]
    while (path.parent / "__init__.py").exists():
        path = path.parent
        names.insert(0, path.name)
    return ".".join(names)


def assigned(node):
    """The names that a statement at the top of a module defines."""
    if isinstance(node, FUNCTIONS | ast.ClassDef):
        return [node.name]
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    parts = [target.elts if isinstance(target, ast.Tuple) else [target] for target in targets]
    return [part.id for found in parts for part in found if isinstance(part, ast.Name)]


def public_names(tree):
    """The names in a module's `__all__`."""
    lists = [node.value for node in tree.body if assigned(node) == ["__all__"]]
    return [name for value in lists if isinstance(value, ast.List) for name in ast.literal_eval(value)]


def name_entry(source, node, name, prefix, homes):
    """The entry of a public name."""
    if isinstance(node, FUNCTIONS):
        return function_entry(source, node, prefix, homes)
    if isinstance(node, ast.ClassDef):
        return class_entry(source, node, prefix, homes)
    return value_entry(node, name, prefix)


def module_page(path):
    """The page of a module, its names in the order of the source."""
    source = path.read_text(encoding="utf-8")
    tree, prefix = ast.parse(source), dotted_name(path)
    homes, public, summary = types_of(tree, prefix), public_names(tree), ast.get_docstring(tree) or ""
    found = {name: node for node in tree.body for name in assigned(node)}
    parts = [f"# {prefix}", literal(summary)]
    chapter = re.search(r"File to edit: (?:\.\./)+nbs/(\w+)\.ipynb", source)
    if chapter:
        parts.append(f"The chapter [](../{chapter[1]}.ipynb) builds and explains it.")
    for name in sorted(set(public) & set(found), key=lambda n: (found[n].lineno, n)):
        parts.append(name_entry(source, found[name], name, prefix, homes))
    return ModulePage(prefix, summary, "\n\n".join(parts) + "\n", public)


def packages(package):
    """{package: its paragraph}, lowest floor first."""
    said = {name: (package / name / "__init__.py").read_text(encoding="utf-8") for name in FLOORS}
    return {name: ast.get_docstring(ast.parse(text)) or "" for name, text in said.items()}


def public_door(package):
    """{name: module} of what `from minicoil import …` offers."""
    source = (package / "__init__.py").read_text(encoding="utf-8")
    return ast.literal_eval(re.search(r"_HOMES = (\{.*?\})", source, re.S)[1])


def page_name(module):
    """`runs.files`, the page of minicoil.runs.files."""
    return module.name.removeprefix("minicoil.")


def package_part(title, said, modules):
    """A package on the first page: what it holds, and its modules."""
    lines = [f"* [{m.name}]({page_name(m)}.md): {literal(m.summary)}" for m in modules]
    pages = [f"{page_name(m)} <{page_name(m)}>" for m in modules]
    tree = "\n".join([":::{toctree}", ":hidden:", "", *pages, ":::"])
    return [f"## {title}", literal(said), "\n".join(lines), tree] if modules else []


def index_page(package, modules):
    """The first page: what `from minicoil import …` offers, and all modules by package."""
    door = [f"* {{py:obj}}`minicoil.{name} <minicoil.{home}.{name}>`"
            for name, home in public_door(package).items()]
    parts = ["# Reference", "What `from minicoil import …` offers:", "\n".join(door),
             "Everything else, by package. A package imports only from those above it on this page."]
    for name, said in packages(package).items():
        mine = [m for m in modules if m.name.startswith(f"minicoil.{name}.")]
        parts += package_part(f"minicoil.{name}", said, mine)
    flat = [m for m in modules if m.name.count(".") == 1]
    parts += package_part("In minicoil itself", "Modules that lie in no package.", flat)
    return "\n\n".join(parts) + "\n"


def reference_pages(package):
    """{page name: Markdown} of the whole reference."""
    modules = [module_page(path) for path in sorted(Path(package).rglob("[a-z]*.py"))]
    return {page_name(m): m.text for m in modules} | {"index": index_page(package, modules)}
