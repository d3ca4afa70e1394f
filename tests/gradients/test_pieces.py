"""Blocks, inner products and weighted sums of the two kinds of piece, against the gradients themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from domainbed.gradients import pieces
from domainbed.gradients.gram import norm_of
from domainbed.gradients.pieces import OuterProducts, Piece, Rows, Span, inner_products

SIZES = [3, 1, 4]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few components each."""
    monkeypatch.setattr(pieces, "_BLOCK", 30)


def outer_products(sizes=SIZES, classes=5, features=7, dtype=torch.float64, parameter=torch.float64):
    """The piece, and its gradients (K, classes * features) in float64."""
    torch.manual_seed(0)
    b = torch.randn(sum(sizes), classes, dtype=dtype)
    a = torch.randn(sum(sizes), features, dtype=dtype)
    parts = zip(b.double().split(sizes), a.double().split(sizes), strict=True)
    return OuterProducts(b, a, sizes, parameter), torch.stack([(x.T @ y).flatten() for x, y in parts])


def rows(k=3, size=35):
    torch.manual_seed(0)
    stack = torch.randn(k, size, dtype=torch.float64)
    return Rows(list(stack)), stack


both = pytest.mark.parametrize("kind", [rows, outer_products])


class TestInnerProducts:
    def test_golden(self):
        g = torch.tensor(
            [[3, -4, -1, 0, -2, 0, -2, 3], [1, 1, -2, 0, -1, 3, 1, -3], [2, 0, -1, 0, 4, -3, 2, -2]]
        )
        expected = [[43, -8, -11], [-8, 26, -1], [-11, -1, 38]]
        for dtype in (torch.float32, torch.float64):
            assert inner_products(g.to(dtype).unbind()).tolist() == expected
            assert inner_products(g.to(dtype).unbind()).dtype == torch.float64

    @pytest.mark.parametrize("block", [2**10, 2**20])
    def test_float32_gradients_of_many_components_lose_nothing(self, monkeypatch, block):
        """The square of 4097 has more digits than float32, so that no sum of squares in float32 is exact."""
        monkeypatch.setattr(pieces, "_BLOCK", block)
        size = 2**20 + 3
        g = torch.full((size,), 4097.0)
        square = 4097**2 * size
        assert Rows([g, -g]).gram().tolist() == [[square, -square], [-square, square]]

    @both
    def test_they_equal_those_of_the_gradients(self, small_blocks, kind):
        piece, g = kind()
        torch.testing.assert_close(piece.gram(), g @ g.T, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("features", [2, 400])
    def test_outer_products_take_the_cheaper_of_two_ways(self, monkeypatch, features):
        """By the gradients themselves if there are more rows than components, else by the rows' products."""
        by_gradients = []
        monkeypatch.setattr(
            pieces,
            "_gram_of_blocks",
            lambda each, of_blocks=pieces._gram_of_blocks: by_gradients.append(1) or of_blocks(each),
        )
        piece, g = outer_products([2, 1, 3], classes=3, features=features)
        torch.testing.assert_close(piece.gram(), g @ g.T, rtol=1e-12, atol=1e-12)
        assert len(by_gradients) == (features == 2)

    def test_those_of_float32_outer_products_are_float64(self):
        piece, g = outer_products(dtype=torch.float32, parameter=torch.float32)
        assert piece.gram().dtype == torch.float64
        torch.testing.assert_close(piece.gram(), g @ g.T, rtol=1e-12, atol=1e-12)

    @settings(deadline=None)
    @given(
        arrays(
            np.float64,
            st.tuples(st.integers(1, 5), st.integers(1, 12)),
            elements=st.floats(-1e3, 1e3).filter(lambda v: v == 0 or abs(v) > 1e-100),  # squares stay above 0
        )
    )
    def test_the_norm_of_a_weighted_sum_follows_from_them(self, g):
        piece, weights = Rows(list(torch.from_numpy(g))), np.linspace(-1, 2, len(g))
        out = torch.empty(g.shape[1], dtype=torch.float64)
        piece.write(torch.from_numpy(weights), out)
        np.testing.assert_allclose(out, weights @ g, rtol=1e-12, atol=1e-9)
        assert abs(norm_of(piece.gram().numpy(), weights) - out.norm().item()) <= 1e-6 * np.abs(g).sum()


class TestBlocks:
    @both
    def test_they_cover_the_components_in_order(self, small_blocks, kind):
        piece, g = kind()
        end = 0
        for start, gradients in piece.blocks():
            assert start == end
            end += len(gradients[0])
            torch.testing.assert_close(torch.stack(gradients), g[:, start:end])
        assert end == g.shape[1]
        assert len(list(piece.blocks())) > 1

    def test_equal_numbers_of_rows_give_the_same_gradients(self, small_blocks):
        piece, g = outer_products([4, 4, 4])
        found = [torch.stack(gradients) for _, gradients in piece.blocks()]
        torch.testing.assert_close(torch.cat(found, 1)[:, -7:], g[:, -7:])

    def test_they_have_the_dtype_of_the_parameter(self):
        piece, _ = outer_products(dtype=torch.bfloat16, parameter=torch.float32)
        assert {each.dtype for _, gradients in piece.blocks() for each in gradients} == {torch.float32}

    def test_rows_without_components_are_one_empty_block(self):
        ((start, gradients),) = Rows([torch.empty(0), torch.empty(0)]).blocks()
        assert start == 0
        assert [len(each) for each in gradients] == [0, 0]


class TestWrite:
    @both
    def test_it_writes_the_weighted_sum(self, small_blocks, kind):
        piece, g = kind()
        weights = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
        out = torch.full((g.shape[1],), torch.nan, dtype=torch.float64)
        piece.write(weights, out)
        torch.testing.assert_close(out, weights @ g)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_it_writes_the_dtype_of_the_parameter(self, dtype):
        piece, g = outer_products(dtype=dtype, parameter=torch.float32)
        weights = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
        out = torch.empty(g.shape[1])
        piece.write(weights, out)
        tolerance = 1e-5 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(out.double(), weights @ g, rtol=tolerance, atol=tolerance)

    def test_rows_are_not_changed(self):
        piece, g = rows()
        before = g.clone()
        piece.write(torch.ones(3, dtype=torch.float64), torch.empty(35, dtype=torch.float64))
        assert torch.equal(g, before)


class TestPiece:
    @pytest.mark.parametrize(
        ("spans", "contiguous"), [([(2, 4), (4, 7)], slice(2, 7)), ([(1, 3), (5, 8)], None)]
    )
    def test_components_are_taken_from_and_written_to_their_positions(self, spans, contiguous):
        piece = Piece([Span(*span) for span in spans], Rows([torch.zeros(5)]))
        assert piece.size == 5
        assert piece.contiguous == contiguous
        vector = torch.arange(10.0)
        positions = [i for start, stop in spans for i in range(start, stop)]
        assert piece.gather(vector).tolist() == positions
        out = torch.zeros(10)
        piece.scatter(torch.tensor([1.0, 2, 3, 4, 5]), out)
        assert out[positions].tolist() == [1, 2, 3, 4, 5]
        assert out.sum() == 15
