from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from lloss.selection.hashing import draw_exponentials, draw_hash, draw_shares

from ..score_tables import score_table, select_from, tied_table


def test_exponentials_are_minus_log_of_a_share_drawn_by_the_id() -> None:
    ids = [f"{row}.jpg" for row in range(400)]
    shares = [((draw_hash(id, 5) >> 11) + 1) / 2**53 for id in ids]
    assert draw_shares(pa.array(ids), 5).tolist() == shares
    draws = draw_exponentials(pa.array(ids), 5)
    expected = np.array([-math.log(share) for share in shares])
    assert np.allclose(draws, expected, rtol=1e-14, atol=1e-16)


def test_an_image_is_drawn_in_proportion_to_its_weight() -> None:
    """Of two scores, the shares of lower ones are 1/3 and 2/3: the weights are 1 to 2."""
    table = score_table([1.0, 2.0], ["a", "b"])
    first = [select_from(table, k=1, strategy="power", seed=seed).ids[0] for seed in range(400)]
    assert abs(first.count("b") / 400 - 2 / 3) < 4 * 0.48 / math.sqrt(400)


def test_draws_neither_depend_on_batches_nor_repeat_with_another_seed() -> None:
    table = tied_table(500)
    chosen = select_from(table, k=40, strategy="power", seed=1)
    batches = pa.Table.from_batches(table.take(np.arange(499, -1, -1)).to_batches(37))
    assert select_from(batches, k=40, strategy="power", seed=1).ids == chosen.ids
    assert select_from(table, k=40, strategy="power", seed=2).ids != chosen.ids
    assert chosen.scores.mean() > 0.6 > np.mean(table["loss"].to_numpy())
    assert chosen.reasons[0] == f"drawn; loss {chosen.scores[0]:.3g}"
