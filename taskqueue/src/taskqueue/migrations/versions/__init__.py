"""One file for each revision, numbered in order, never changed once released.

A revision only adds: tables, indexes, columns that are nullable or have a default. Code of an older revision then works
with the newer database. A revision that does more ends with
`op.execute(f"UPDATE alembic_version SET compatible_from = '{revision}'")`: older code refuses the database.
"""
