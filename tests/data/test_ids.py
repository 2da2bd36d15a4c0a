"""A small table of numbers by id says what a dictionary says."""

from hypothesis import given
from hypothesis import strategies as st

from trl_balcap.data import ids
from trl_balcap.data.ids import IdTable

ID = st.text(alphabet=st.characters(exclude_categories=()), max_size=3)


@given(st.lists(st.tuples(ID, st.integers(-(2**62), 2**62))))
def test_a_table_is_a_dictionary(pairs):
    before, ids._RECENT = ids._RECENT, 3  # sort after every third id
    try:
        table = IdTable()
        for name, number in pairs:
            table[name] = number
        known = dict(pairs)
        assert {name: table.get(name) for name in known} == known
        assert ("none of these" in table, len(table)) == (False, len(known))
        assert {name: table.get(name) for name in known} == known  # sorted as a whole by `len`
    finally:
        ids._RECENT = before
