"""What docs/scihub.md says about the database is so."""

import re
import sqlite3
from pathlib import Path

import pytest

from scihub_connector.database import Database, tables

PAGE = (Path(__file__).parents[2] / "docs" / "scihub.md").read_text()
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_page_works(query, tmp_path):
    database = Database(f"sqlite:///{tmp_path}/bec.sqlite", "d")
    database.open()
    database.close()
    connection = sqlite3.connect(tmp_path / "bec.sqlite")
    assert connection.execute(query).fetchall() == []
    connection.close()


def test_the_page_has_all_tables_and_columns():
    assert len(QUERIES) == 4
    rows = {row.split("|")[1].strip(" `"): row for row in PAGE.splitlines() if row.startswith("| `")}
    assert set(rows) == set(tables())
    for table, columns in tables().items():
        documented = re.findall(r"`(\w+)`", rows[table].split("|")[3])
        assert [name for name in documented if name in columns] == list(columns), table
