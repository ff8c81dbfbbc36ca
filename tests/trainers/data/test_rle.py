import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from search_spaces.errors import InputError
from trainers.data.masks import read_mask
from trainers.data.prepare import prepare
from trainers.data.rle import decode, encode, read_rles, write_submission
from trainers.data.sources import scan


def test_runs_are_row_major_and_counted_from_one() -> None:
    mask = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]])
    assert encode(mask) == "2 3 9 1"
    assert decode("2 3 9 1", 3, 3).tolist() == mask.astype(bool).tolist()


def test_an_empty_mask_is_1_0() -> None:
    assert encode(np.zeros((4, 5), np.uint8)) == "1 0"
    assert not decode("1 0", 4, 5).any()
    assert not decode("", 4, 5).any()


def test_a_full_mask_is_one_run() -> None:
    assert encode(np.ones((4, 5), np.uint8)) == "1 20"
    assert decode("1 20", 4, 5).all()


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_mask_survives_its_run_lengths(mask: np.ndarray) -> None:
    assert np.array_equal(decode(encode(mask), *mask.shape), mask)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 6)), max_size=8))
def test_runs_mark_their_union_in_any_order_and_overlap_nowhere(runs: list[tuple[int, int]]) -> None:
    text = " ".join(f"{start} {length}" for start, length in runs)
    inside = [position for start, length in runs for position in range(start, start + length)]
    if len(set(inside)) < len(inside):
        with pytest.raises(InputError, match=r"rle: the runs \d+ \d+ and \d+ \d+ overlap"):
            decode(text, 6, 6)
    else:
        assert (np.flatnonzero(decode(text, 6, 6).ravel()) + 1).tolist() == sorted(inside)


@pytest.mark.parametrize(
    ("rle", "says"),
    [
        ("3 2 8", "3 numbers"),
        ("3 two", "'two'"),
        ("-3 2", "'-3'"),
        ("1.5 2", "'1.5'"),
        ("0 2", "the run 0 2"),
        ("19 3", "the run 19 3"),
        ("1 99999999999999999999", "beyond any slice"),
        ("+3 2", r"'\+3'"),
        ("1_0 2", "'1_0'"),
        ("1e1 2", "'1e1'"),
        ("3,2", "'3,2'"),
        ("1 4 9 2 3 3", "the runs 1 4 and 3 3 overlap"),
        ("9 2 1 4 9 2", "the runs 9 2 and 9 2 overlap"),
        ("9 2 1 0", "the run 1 0 is empty"),
        ("7 0", "the run 7 0 is empty; only '1 0' alone is, for an empty slice"),
        ("\N{ARABIC-INDIC DIGIT THREE} 2", "'\N{ARABIC-INDIC DIGIT THREE}'"),
        ("1 2 3\N{NO-BREAK SPACE}4", r"'3\\xa04'"),
        ("1 2\N{EM SPACE}3 4", r"'2\\u20033'"),
        ("1 2\x1c3 4", r"'2\\x1c3'"),
    ],
)
def test_a_broken_code_is_named(rle: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        decode(rle, 4, 5, "train_rles.csv, line 7")
    assert str(error.value).startswith("train_rles.csv, line 7: ")


def test_a_broken_code_is_named_by_its_id_wherever_it_is_read(tmp_path) -> None:
    np.save(tmp_path / "k.npy", np.arange(40, dtype=np.uint16).reshape(2, 4, 5))
    (tmp_path / "train_rles.csv").write_text("id,rle\nk_0000,1 0\nk_0001,1 4 3 3\n")
    told = r"train_rles\.csv \(id k_0001\): the runs 1 4 and 3 3 overlap"
    with pytest.raises(InputError, match=told):
        prepare(scan(tmp_path)[0], tmp_path / "cache")
    with pytest.raises(InputError, match=told):
        read_mask(tmp_path / "train_rles.csv", shape=(2, 4, 5))


def test_rows_are_found_by_volume_and_slice_number(tmp_path) -> None:
    path = tmp_path / "train_rles.csv"
    path.write_text('id,rle,height,width\nkidney_3_dense_0496,1 0,4,5\n"kidney_3_dense_0497","2 3",4,5\n\n')
    rows = read_rles(path)["kidney_3_dense"]
    assert sorted(rows) == [496, 497]
    assert (rows[497].rle, rows[497].height, rows[497].width) == ("2 3", 4, 5)


def test_a_cell_may_be_longer_than_the_csv_module_allows(tmp_path) -> None:
    rle = " ".join(f"{2 * n + 1} 1" for n in range(40_000))
    (tmp_path / "a.csv").write_text(f"id,rle\nk_0,{rle}\n")
    assert len(rle) > 2**17
    assert read_rles(tmp_path / "a.csv")["k"][0].rle == rle


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slice,rle\nk_0,1 0\n", "columns must be id,rle"),
        ("id,rle\nk_0\n", "line 2: 1 cells"),
        ("id,rle\nk_0,1 0\nk-1,1 0\n", "line 3: the id 'k-1'"),
        ("id,rle\nk_0,1 0\nk_0,1 0\n", "line 3: .* twice"),
        ("id,rle\n../k_0,1 0\n", "line 2: '../k'"),
        ("id,rle,height,width\nk_0,1 0,-4,5\n", "line 2: height and width"),
    ],
)
def test_a_broken_row_is_named(tmp_path, text: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_rles(tmp_path / "a.csv")


def test_a_submission_decodes_to_the_masks_it_was_made_of(tmp_path) -> None:
    masks = np.random.default_rng(0).random((3, 6, 7)) < 0.3
    path = write_submission(tmp_path / "out" / "s.csv", ((f"kidney_5_{z:04d}", encode(m)) for z, m in enumerate(masks)))
    rows = read_rles(path)["kidney_5"]
    assert all(np.array_equal(decode(rows[z].rle, 6, 7), mask) for z, mask in enumerate(masks))


def test_a_submission_that_fails_half_way_leaves_no_file(tmp_path) -> None:
    def rows():
        yield "kidney_5_0000", "1 0"
        raise RuntimeError("the network fell over")

    with pytest.raises(RuntimeError):
        write_submission(tmp_path / "s.csv", rows())
    assert not (tmp_path / "s.csv").exists()


def test_a_submission_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"out.*: cannot be written \("):
        write_submission(tmp_path / "out" / "s.csv", iter([("kidney_5_0000", "1 0")]))


def test_a_cell_that_a_spreadsheet_cut_is_refused(tmp_path) -> None:
    rle = " ".join(f"{3 * n + 11_111} 1" for n in range(5_000))[:32_767]
    assert len(rle.split()) == 2 * 4096  # whole pairs, which is why nothing else would notice
    (tmp_path / "a.csv").write_text(f"id,rle\nk_0,{rle}\n")
    with pytest.raises(InputError, match=r"line 2: its code has exactly 32,767 characters"):
        read_rles(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["kidney, left", 'kidney "3"', "Niere Ä", "k;1", " k"])
def test_a_table_is_read_back_whatever_its_volumes_are_called(tmp_path, name: str) -> None:
    rows = [(f"{name}_{z:04d}", f"{z + 1} 2") for z in range(3)]
    write_submission(tmp_path / "s.csv", rows)
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "rle"], *map(list, rows)]
    assert {z: row.rle for z, row in read_rles(tmp_path / "s.csv")[name.strip()].items()} == {
        0: "1 2",
        1: "2 2",
        2: "3 2",
    }


@pytest.mark.parametrize("text", ['id,rle\nk_0,"1 2\nk_1,1 0\n', 'id,rle\nk_0,"1 2"x\n'])
def test_a_quote_that_does_not_end_is_named(tmp_path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=r"a\.csv, line \d: not valid CSV"):
        read_rles(tmp_path / "a.csv")
