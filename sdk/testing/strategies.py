"""Hypothesis strategies made of the contract's structs: any request that a node may send. Needs the extra `testing`.

from hypothesis import given
from sdk.testing import FakeHost, strategies

host = FakeHost(".")

@given(strategies.requests("bid"))
def test_it_never_bids_below_its_cost(request):
    reply = host.call("bid", request)
    ...
"""

from functools import cache
from typing import Any

from msgspec import inspect

from host.core.errors import UsageError
from host.plugins.contract import SHAPES, PlanSettings, Shape
from sdk.samples import BOLD, UINT_MAX, present, sound
from sdk.testing.host import Job
from sdk.vectors import pieces

try:
    from hypothesis import assume
    from hypothesis import strategies as st
except ImportError as error:
    raise UsageError("sdk.testing.strategies needs Hypothesis; get it with `pip install 'snapcount[testing]'`") from error

LINE = st.one_of(
    st.from_regex(rb"\A[GM]\d{1,3}( [XYZEFIJKRSP]-?\d{1,4}(\.\d{1,4})?){0,5}\Z"),
    st.binary(max_size=40).filter(lambda line: b"\n" not in line),
)


def requests(hook: str) -> st.SearchStrategy[Any]:
    """The requests of a hook, as `FakeHost.call` takes them. Raises UsageError for a hook without one; `jobs` is for plan_job."""
    if hook not in SHAPES:
        raise UsageError(f"there is no hook {hook} that takes one request; there are {', '.join(sorted(SHAPES))}, and jobs() for plan_job")
    return of(SHAPES[hook][0])


@cache
def of(shape: type[Shape]) -> st.SearchStrategy[Any]:
    """Any value of one of the contract's structs, from host/plugins/contract.py."""
    return _of(inspect.type_info(shape)).map(lambda value: _typed(shape, value))


@st.composite
def jobs(draw: st.DrawFn, lines_max: int = 40) -> Job:
    """Programs for `FakeHost.ask("plan_job", …)`, of lines that are G-code and lines that are anything, cut into pieces anywhere."""
    program = b"\n".join(draw(st.lists(LINE, max_size=lines_max)))
    cuts = draw(st.lists(st.integers(0, len(program)), max_size=4))
    return Job(program=pieces(program, cuts), settings=draw(of(PlanSettings)), run=draw(st.booleans()))


def _typed(shape: type[Shape], value: dict[str, Any]) -> Shape:
    made = sound(shape, value)
    assume(made is not None)  # what a struct demands of several fields together
    assert made is not None
    return made


def _of(kind: Any) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType(fields=fields):
            values = {field.encode_name: _of(present(field.type)) for field in fields}
            needed = {field.encode_name for field in fields if field.required}
            return st.fixed_dictionaries(
                {key: value for key, value in values.items() if key in needed},
                optional={key: value for key, value in values.items() if key not in needed},
            )
        case inspect.BoolType():
            return st.booleans()
        case inspect.IntType(ge=low, le=high):
            return st.integers(low or 0, UINT_MAX if high is None else high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False, allow_infinity=False)
        case inspect.StrType(min_length=low, max_length=high):
            return st.text(min_size=low or 0, max_size=min(high or BOLD.text_max, BOLD.text_max))
        case inspect.BytesType(min_length=low, max_length=high):
            return st.binary(min_size=low or 0, max_size=max(low or 0, min(high or BOLD.bytes_max, BOLD.bytes_max)))
        case inspect.LiteralType(values=words):
            return st.sampled_from(words)
        case inspect.TupleType(item_types=kinds):
            return st.tuples(*map(_of, kinds)).map(list)
        case inspect.VarTupleType(item_type=item, min_length=low, max_length=high):
            return st.lists(_of(item), min_size=low or 0, max_size=min(high or BOLD.list_max, BOLD.list_max))
    raise AssertionError(f"a type that no struct of the contract had so far: {kind}")


__all__ = ["jobs", "of", "requests"]
