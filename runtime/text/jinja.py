"""The jinja of chat templates: a sandbox with the names and filters that transformers gives it.

Every operation of a template is bounded (`bounds.py`, `guards.py`): nodes that count are put into
it after it was parsed.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

from lcc.runtime.text import guards
from lcc.runtime.text.bounds import NESTED, SOURCE, TemplateLimitError, meter, metered

# Filters that no template can name.
MADE, SHOWN, COMPARED, ROUND = "lcc made", "lcc shown", "lcc compared", "lcc round"


class Template:
    """A template, parsed; `render` may run in many threads."""

    def __init__(self, template: Any) -> None:
        self._template = template

    def render(self, given: Mapping[str, Any]) -> str:
        """The text; raises whatever its code does, TemplateLimitError where it takes too much."""
        with metered([each for each in given.values() if not callable(each)]) as bound:
            return bound.shown(str(self._template.render(given)))


def compiled(source: str) -> Template:
    """A template; raises whatever jinja does where it is none."""
    if len(source) > SOURCE:
        raise TemplateLimitError(f"has {len(source):,} characters, more than {SOURCE:,}")
    with metered(()):
        return Template(_environment().from_string(source))


def _environment() -> Any:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
    from jinja2 import nodes, pass_context

    class Generation(jinja2.ext.Extension):
        """`{% generation %}` marks the answers for training: here its body alone counts."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Callable[[], str]) -> str:
            return caller()

    class Environment(jinja2.sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

        def _parse(self, source: str, name: str | None, filename: str | None) -> Any:
            return _counted(super()._parse(source, name, filename)).set_environment(self)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            guards.operated(operator, left, right)
            result = super().call_binop(context, operator, left, right)
            meter().made(result)
            return result

        def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
            given = guards.called(__obj, args, kwargs)
            result = super().call(__context, __obj, *given, **kwargs)
            meter().made(result)
            return result

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # nothing is computed while it is compiled
        extensions=[Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.filters["join"] = pass_context(guards.join)
    for name in guards.NO_FILTERS:
        del environment.filters[name]
    for name, function in environment.filters.items():
        environment.filters[name] = guards.guarded_filter(name, function)
    tests: dict[str, Any] = environment.tests
    environment.tests = {name: guards.guarded_test(name, each) for name, each in tests.items()}
    environment.filters |= {MADE: pass_context(_made), SHOWN: pass_context(_shown)}
    environment.filters |= {COMPARED: pass_context(_compared), ROUND: pass_context(_round)}
    environment.globals = {
        name: environment.globals[name] for name in ("range", "cycler", "joiner")
    }
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _namespace
    return environment


def _counted(template: Any) -> Any:
    """A parsed template in which everything that takes time or memory is counted."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def through(name: str, node: Any) -> Any:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def rounds(node: Any) -> Any:
        count = through(ROUND, nodes.ContextReference(lineno=node.lineno))
        return nodes.ExprStmt(count, lineno=node.lineno)

    class Count(NodeTransformer):
        depth = 0

        def generic_visit(self, node: Any) -> Any:
            call = node.call if isinstance(node, nodes.CallBlock) else None
            self.depth += isinstance(node, nodes.Stmt)
            if self.depth > NESTED:
                raise TemplateLimitError(f"nests more than {NESTED} statements")
            node = super().generic_visit(node)
            self.depth -= isinstance(node, nodes.Stmt)
            if call is not None:
                node.call = call  # must be a call itself
            if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
                node.body.insert(0, rounds(node))
                if isinstance(node, nodes.For) and node.test is not None:
                    node.test = through(COMPARED, node.test)
            elif isinstance(node, nodes.Output):
                node.nodes = [through(SHOWN, each) for each in node.nodes]
            elif isinstance(node, nodes.Concat):
                node.nodes = [through(SHOWN, each) for each in node.nodes]
                return through(MADE, node)
            elif isinstance(node, nodes.Operand | nodes.Compare):
                node.expr = through(COMPARED, node.expr)
            elif isinstance(node, nodes.List | nodes.Dict):
                return through(MADE, node)
            elif isinstance(node, nodes.Tuple) and node.ctx == "load":
                return through(MADE, node)
            elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
                return through(MADE, node)
            return node

    return Count().visit(template)


def _made(_: Any, value: Any) -> Any:
    """Count what a template has written down."""
    meter().whole(value)
    meter().made(value)
    return value


def _shown(_: Any, value: Any) -> str:
    """Count what a template puts into its text."""
    meter().whole(value)
    text = str(value)
    meter().made(text)
    return text


def _compared(_: Any, value: Any) -> Any:
    """Count what a template compares."""
    meter().step()
    meter().whole(value)
    return value


def _round(_: Any, context: Any) -> Any:
    """Count a round of a loop, or the body of a macro."""
    meter().step()
    return context


def plain(value: Any) -> Any:
    """What a template may see: JSON's own types, rebuilt; all else is its type's name.

    Templates are code of others, and methods of rich objects may write files.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(each) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return plain(value.model_dump())
    if callable(getattr(value, "item", None)) and not getattr(value, "shape", True):
        return plain(value.item())  # a number of numpy
    return f"<{type(value).__name__}>"


class _Dict:
    """`dict` of a template, without the attributes of the type."""

    def __call__(self, *given: Any, **more: Any) -> dict[Any, Any]:
        return dict(*given, **more)

    def fromkeys(self, *given: Any) -> dict[Any, Any]:
        return dict.fromkeys(*given)


def _namespace(*given: Any, **more: Any) -> Any:
    """`namespace` of a template, without names that begin with an underscore."""
    import jinja2
    from jinja2.utils import Namespace

    class Names(Namespace):
        def __repr__(self) -> str:
            return "<Namespace>"

        def __setitem__(self, name: str, value: Any) -> None:
            _check_name(name)
            super().__setitem__(name, value)

    def _check_name(name: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no {name}")

    for name in dict(*given, **more):
        _check_name(name)
    return Names(*given, **more)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
