"""A firm's table against the public terms: every fault named, the split by group and for good."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from greylag_client.table import load_table, read_cells
from greylag_protocols.errors import ConfigError
from greylag_protocols.terms import DataTerms, Feature, Target

REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "glass_tg_by_firm.csv.gz"

TERMS = DataTerms(
    standard="alloys@1.0",
    task="regression",
    targets=(
        Target(name="strength", unit="MPa", range=(0, 1000)),
        Target(name="melting", unit="K", range=(300, 2000)),
    ),
    features=(
        Feature(names=("copper", "nickel"), unit="wt%", range=(0, 100)),
        Feature(names=("heat",), unit="K", range=(200, 1500)),
    ),
    group="melt",
    holdout=0.3,
    expected_records=1000,
    max_records_per_firm=50,
)
HEADER = "melt,copper,nickel,heat,strength,melting,remark"
CLASSES = replace(
    TERMS, task="classification", targets=(Target(name="fault", classes=("no", "yes")),), group=None
)


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def refusal(path: Path, terms: DataTerms = TERMS) -> str:
    with pytest.raises(ConfigError) as caught:
        load_table(path, terms)
    assert caught.value.exit_code == 2
    return str(caught.value)


def good_rows(count: int, group_size: int = 3) -> list[str]:
    return [f"M{i // group_size},{i % 90}.5,9,{300 + i},{i + 1},1200,ok" for i in range(count)]


def test_loads_values_gaps_and_groups(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        "M1, 10 ,20,300,NA,900,x",
        'M1,1e1,20.5,301,5,"",',
        "M2,0,0,200,1,1200,y",
    )
    table = load_table(path, TERMS)
    assert table.features.tolist() == [[10, 20, 300], [10, 20.5, 301], [0, 0, 200]]
    np.testing.assert_array_equal(table.targets, [[np.nan, 900], [5, np.nan], [1, 1200]])
    assert table.groups == ("M1", "M1", "M2")
    assert table.largest_group == 2
    records = table.records(np.array([2, 0]))
    np.testing.assert_allclose(records.inputs[0], [-1, -1, -1])
    np.testing.assert_allclose(records.targets[0], [2 * 1 / 1000 - 1, 2 * 900 / 1700 - 1])
    assert np.isnan(records.targets[1, 0])


def test_column_order_bom_gzip_and_empty_end_do_not_matter(tmp_path: Path) -> None:
    plain = load_table(write(tmp_path / "a.csv", *good_rows(9)), TERMS)
    names = HEADER.split(",")
    turned = [names[::-1], *(row.split(",")[::-1] for row in good_rows(9)), [""] * 7, [""] * 7]
    text = "\ufeff" + "\r\n".join(",".join(cells) for cells in turned)
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(text.encode()))
    other = load_table(tmp_path / "b.csv.gz", TERMS)
    np.testing.assert_array_equal(plain.features, other.features)
    np.testing.assert_array_equal(plain.holdout, other.holdout)


def test_split_keeps_groups_whole_and_every_row_once(tmp_path: Path) -> None:
    terms = replace(TERMS, max_records_per_firm=5000)
    rows = [f"M{i % 1000},1,9,300,{i % 100},1200," for i in range(3000)]
    table = load_table(write(tmp_path / "a.csv", *rows), terms)
    groups = np.array(table.groups)
    assert not set(groups[table.train]) & set(groups[table.holdout])
    assert sorted([*table.train, *table.holdout]) == list(range(3000))
    assert 0.25 < len(table.holdout) / 3000 < 0.35
    reseeded = load_table(tmp_path / "a.csv", replace(terms, split_seed=1))
    assert set(table.holdout) != set(reseeded.holdout)


def test_split_is_pinned(tmp_path: Path) -> None:
    # A firm that upgrades must not see rows change sides: they would have been trained on.
    rows = [f"M{i},1,9,300,5,1200," for i in range(20)]
    table = load_table(write(tmp_path / "a.csv", *rows), TERMS)
    assert table.holdout.tolist() == PINNED_BY_GROUP
    table = load_table(tmp_path / "a.csv", replace(TERMS, group=None))
    assert len(table.holdout) in (0, 20)  # twenty equal rows


PINNED_BY_GROUP = [3, 5, 12, 13, 15, 16, 18]  # by a separate few lines of hashlib


def test_without_group_equal_rows_stay_together(tmp_path: Path) -> None:
    rows = [f"x{i},{i % 20},9,300,{i % 20},1200," for i in range(40)]
    rows[25] = "x25,5.0,+9,3e2,5,1200.00,"  # row 5 again, written otherwise
    table = load_table(write(tmp_path / "a.csv", *rows), replace(TERMS, group=None))
    side = np.isin(np.arange(40), table.holdout)
    assert 0 < side.sum() < 40
    assert (side[:20] == side[20:]).all()
    assert table.groups[7] == "7"
    assert table.largest_group == 1


def test_missing_columns_get_a_suggestion(tmp_path: Path) -> None:
    header = "Melt,Coper,nickel,heat,strength_mpa,melting,remark"
    message = refusal(write(tmp_path / "a.csv", *good_rows(3), header=header))
    assert "'copper' is missing; did you mean 'Coper'?" in message
    assert "'strength' is missing; did you mean 'strength_mpa'?" in message
    assert "'melt' is missing; did you mean 'Melt'?" in message


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("M1,ten,9,300,5,1200,", "column 'copper': 1 row with text where a number is due"),
        ("M1,\"1,5\",9,300,5,1200,", "decimal comma"),
        ("M1,nan,9,300,5,1200,", "column 'copper': 1 row with NaN or infinity"),
        ("M1,1,9,300,5,-inf,", "column 'melting': 1 row with NaN or infinity"),
        ("M1,1,9,1e400,5,1200,", "column 'heat': 1 row with NaN or infinity"),
        ("M1,100.01,9,300,5,1200,", "column 'copper': 1 row outside the public range [0, 100] wt%"),
        ("M1,1,9,300,5,299,", "column 'melting': 1 row outside the public range [300, 2000] K"),
        ("M1,1,,300,5,1200,", "column 'nickel': 1 row without a value"),
        ("M1,1,9,300,,NA,", "1 row without any target value"),
        (" ,1,9,300,5,1200,", "column 'melt': 1 row without a group"),
    ],
)  # fmt: skip
def test_each_fault_is_named_with_its_row(tmp_path: Path, row: str, said: str) -> None:
    message = refusal(write(tmp_path / "a.csv", *good_rows(3), row, *good_rows(2)))
    assert said in message
    assert "(row 5)" in message
    assert message.startswith("a.csv")


def test_many_faults_come_in_one_bounded_error_without_values(tmp_path: Path) -> None:
    rows = [f"M,{31337 + i},secret,300,5,1200," for i in range(20)]
    message = refusal(write(tmp_path / "a.csv", *rows))
    assert "'copper': 20 rows outside" in message
    assert "'nickel': 20 rows with text" in message
    assert "(row 2, 3, 4, 5, 6, ...)" in message
    assert "secret" not in message
    assert "31337" not in message
    wide = replace(
        TERMS, features=(Feature(names=tuple(f"f{i}" for i in range(900)), range=(0, 1)),)
    )
    message = refusal(write(tmp_path / "b.csv", *good_rows(2)), wide)
    assert "and 888 more problems" in message
    assert len(message) < 2000


def test_too_many_rows_and_none(tmp_path: Path) -> None:
    assert "51 rows are more than the 50" in refusal(write(tmp_path / "a.csv", *good_rows(51)))
    assert len(load_table(write(tmp_path / "a.csv", *good_rows(50)), TERMS)) == 50
    assert "no rows" in refusal(write(tmp_path / "b.csv"))
    (tmp_path / "c.csv").write_bytes(b"")
    assert "first row must name the columns" in refusal(tmp_path / "c.csv")


def test_classes_must_be_known_and_present(tmp_path: Path) -> None:
    header = "copper,nickel,heat,fault"
    path = write(tmp_path / "a.csv", "1,2,300,no", "3,4,300,yes", header=header)
    table = load_table(path, CLASSES)
    assert table.targets.tolist() == [[0], [1]]
    assert table.records(np.arange(2)).targets.tolist() == [[0], [1]]
    path = write(tmp_path / "b.csv", "1,2,300,No", "3,4,300,", "3,4,300,yes", header=header)
    message = refusal(path, CLASSES)
    assert (
        "'fault': 1 row with a class that the terms lack (they have 'no', 'yes'); "
        "did you mean 'no'? (row 2)" in message
    )
    assert "'fault': 1 row without a class; remove them (row 3)" in message


def test_gaps_among_features_where_the_terms_flag_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "M1,NA,9,300,5,1200,", "M2,1,,300,5,1200,")
    table = load_table(path, replace(TERMS, missing="zero-and-flag"))
    np.testing.assert_array_equal(np.isnan(table.features), [[1, 0, 0], [0, 1, 0]])
    assert table.records(np.array([0])).inputs[0, 3:].tolist() == [1, 0, 0]


def test_files_that_are_no_such_csv(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes((HEADER + "\nM1,1,9,300,5,1200,Gefäß\n").encode("latin-1"))
    assert "not UTF-8 (first seen in row 2)" in refusal(tmp_path / "latin.csv")
    (tmp_path / "wide.csv").write_bytes((HEADER + "\n").encode("utf-16"))
    assert "not UTF-8" in refusal(tmp_path / "wide.csv")
    assert "separated by semicolons" in refusal(write(tmp_path / "s.csv", header="melt;copper"))
    twice = refusal(write(tmp_path / "t.csv", header="melt,copper,copper"))
    assert "names stand twice in the header: 'copper'" in twice
    ragged = refusal(write(tmp_path / "r.csv", *good_rows(2), "M1,1,9,300,5,1200,,8"))
    assert "(row 4 has 8 cells)" in ragged
    assert "cannot be read" in refusal(tmp_path / "absent.csv")
    assert "only .csv" in refusal(tmp_path / "a.xlsx")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"melt,copper\n" * 99)[:-12])
    assert "cannot be read" in refusal(tmp_path / "cut.csv.gz")


@pytest.mark.skipif(not REAL.exists(), reason="glass data is not beside the repository")
def test_real_glasses_load_firm_by_firm(tmp_path: Path) -> None:
    import polars as pl

    frame = pl.read_csv(REAL, infer_schema=False)
    at = frame.columns.index("SiO2"), frame.columns.index("tg_k")
    terms = replace(
        TERMS,
        targets=(Target(name="tg_k", unit="K", range=(300, 1300)),),
        features=(Feature(names=tuple(frame.columns[at[0] : at[1]]), unit="mol%", range=(0, 100)),),
        group="ref_id",
        max_records_per_firm=5000,
    )
    rows = 0
    for (firm,), part in frame.partition_by("firm", as_dict=True).items():
        part.write_csv(tmp_path / "firm.csv")
        table = load_table(tmp_path / "firm.csv", terms)
        assert len(table) == part.height, firm
        rows += len(table)
    assert rows == 23_355


def test_a_header_that_looks_like_compressed_data_is_text(tmp_path: Path) -> None:
    """``x^`` are also the first bytes of a zlib stream, which polars would unpack."""
    path = tmp_path / "zlib.csv"
    path.write_text("x^2,y\n1,2\n")
    cells = read_cells(path)
    assert (cells.columns, cells.row(0)) == (["x^2", "y"], ("1", "2"))


@pytest.mark.parametrize(
    "header", ["melt, copper", ' melt ,"copper"', '"melt ""x""",copper', '"melt\nx",copper']
)
def test_blanks_quotes_and_line_breaks_in_a_header_are_no_fault(
    tmp_path: Path, header: str
) -> None:
    path = tmp_path / "header.csv"
    path.write_text(f"{header}\n1,2\n3,4\n")
    cells = read_cells(path)
    assert (cells.height, cells.columns[1]) == (2, "copper")
    assert cells.rows() == [("1", "2"), ("3", "4")]
