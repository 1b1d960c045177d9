"""Products and what happens to each row: the native operations against torch, and rows that do not see each other."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from aixcoder_serving.engine.ops import Ops
from tests.unit.engine.ops_cases import DTYPES, VARIANTS, close, native, normal, reference

pytestmark = pytest.mark.usefixtures("two_threads")
# (rows T, width K, columns N): a tile and its neighbours, panels that are not full, several blocks along K, groups of
# tiles, and widths that no vector divides.
PRODUCTS = [
    (1, 64, 64),
    (1, 1, 1),
    (3, 7, 5),
    (4, 33, 31),
    (6, 256, 33),
    (7, 257, 48),
    (13, 100, 96),
    (14, 513, 17),
    (15, 64, 130),
    (32, 600, 70),
    (230, 40, 100),
]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rows", "width", "columns"), PRODUCTS)
def test_linear(variant: str, dtype: torch.dtype, rows: int, width: int, columns: int) -> None:
    ops = native(variant, dtype)
    x, weight = normal(rows, width, dtype=dtype), normal(columns, width, dtype=dtype, seed=1) * width**-0.5
    found = ops.linear(x, ops.pack(weight))
    assert found.dtype == dtype
    close(found, torch.nn.functional.linear(x.double(), weight.double()).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("width", "columns"), [(64, 64), (515, 70), (1200, 33)])
def test_a_row_is_the_same_bits_whatever_else_is_multiplied(
    variant: str, dtype: torch.dtype, width: int, columns: int
) -> None:
    ops = native(variant, dtype)
    x, weight = normal(260, width, dtype=dtype), ops.pack(normal(columns, width, dtype=dtype, seed=1))
    together = ops.linear(x, weight)
    for rows in (1, 2, 5, 8, 13, 14, 15, 29, 100, 225):
        assert torch.equal(ops.linear(x[-rows:], weight), together[-rows:]), rows
    torch.set_num_threads(1)
    assert torch.equal(ops.linear(x, weight), together)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_number_of_one_row_reaches_another(variant: str) -> None:
    ops = native(variant, torch.float32)
    x, weight = normal(20, 50), ops.pack(normal(40, 50, seed=1))
    clean = ops.linear(x, weight)
    x[7, 3] = torch.nan
    dirty = ops.linear(x, weight)
    assert dirty[7].isnan().all()
    assert torch.equal(dirty[8:], clean[8:])
    assert torch.equal(dirty[:7], clean[:7])


def test_linear_refuses_another_width() -> None:
    ops = native("v3", torch.float32)
    with pytest.raises(ValueError, match=r"x is \(2, 9\) torch.float32, the weight takes \(T, 8\) torch.float32"):
        ops.linear(normal(2, 9), ops.pack(normal(4, 8)))


def test_a_part_of_a_tensor_is_packed_as_a_whole_one() -> None:
    ops = native("v3", torch.float32)
    whole, x = normal(20, 30), normal(3, 12, seed=1)
    close(ops.linear(x, ops.pack(whole[4:11, 6:18])), x @ whole[4:11, 6:18].T)


def _norm(ops: Ops, x: Tensor) -> Tensor:
    return ops.rms_norm(x, normal(x.shape[1], dtype=x.dtype, seed=2), 1e-5)


def _add_norm(ops: Ops, x: Tensor) -> Tensor:
    residual = normal(*x.shape, dtype=x.dtype, seed=3)
    normalised = ops.add_rms_norm(x, residual, normal(x.shape[1], dtype=x.dtype, seed=2), 1e-5)
    return torch.cat((normalised, residual), dim=1)


def _silu_mul(ops: Ops, x: Tensor) -> Tensor:
    # A row alone keeps both of its halves.
    return ops.silu_mul(torch.cat((x * 4, x.flip(1)), dim=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (3, 5), (2, 100), (40, 1808), (1, 2048)])
@pytest.mark.parametrize("operation", [_norm, _add_norm, _silu_mul])
def test_each_row(operation: object, variant: str, dtype: torch.dtype, rows: int, width: int) -> None:
    assert callable(operation)
    x = normal(rows, width, dtype=dtype)
    close(operation(native(variant, dtype), x), operation(reference(dtype), x))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_where_its_exponential_ends(variant: str, dtype: torch.dtype) -> None:
    gate = torch.tensor([[-torch.inf, -1e4, -100, -88.5, -87, -20, -0.0, 0.0, 20, 87, 88.5, 100, 1e4, torch.inf]])
    gate_up = torch.cat((gate, torch.ones_like(gate)), dim=1).to(dtype)
    found = native(variant, dtype).silu_mul(gate_up)
    # Nothing goes to zero through minus infinity: silu there is minus infinity times zero.
    close(found[:, 1:], reference(dtype).silu_mul(gate_up)[:, 1:])
    assert native(variant, dtype).silu_mul(torch.full((1, 2), torch.nan, dtype=dtype)).isnan().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_exponential_is_exact_to_two_units_in_the_last_place(variant: str) -> None:
    """By way of silu(x) = x / (1 + exp(-x)), where exp(-x) is all that counts: x far below zero."""
    x = torch.linspace(-80, -20, 10_000)
    found = native(variant, torch.float32).silu_mul(torch.stack((x, torch.ones_like(x)), dim=1))[:, 0]
    exact = x.double() / (1 + torch.exp(-x.double()))
    assert float(((found.double() - exact) / exact).abs().max()) < 3 * 2**-24 + 2**-23


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_values_are_rounded_as_torch_rounds(variant: str, dtype: torch.dtype) -> None:
    """A sum of two values that lies between two bfloat16 takes the even one; not-a-number and infinities stay."""
    ops = native(variant, dtype)
    x = torch.tensor([[1.0, 1.0, 3.0, torch.inf, torch.nan, 3.3e38]], dtype=dtype)
    residual = torch.tensor([[2**-8, 3 * 2**-8, -3.0, 1.0, 1.0, 3.3e38]], dtype=dtype)
    wanted = residual + x
    ops.add_rms_norm(x, residual, torch.ones(6, dtype=dtype), 1e-5)
    torch.testing.assert_close(residual, wanted, rtol=0, atol=0, equal_nan=True)


def test_a_residual_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="residual is not contiguous"):
        native("v3", torch.float32).add_rms_norm(normal(2, 4), normal(2, 8)[:, ::2], normal(4), 1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_row_gives_no_row(variant: str, dtype: torch.dtype) -> None:
    ops = native(variant, dtype)
    assert ops.linear(normal(0, 8, dtype=dtype), ops.pack(normal(4, 8, dtype=dtype))).shape == (0, 4)
    assert ops.silu_mul(normal(0, 8, dtype=dtype)).shape == (0, 4)
    assert _norm(ops, normal(0, 8, dtype=dtype)).shape == (0, 8)
