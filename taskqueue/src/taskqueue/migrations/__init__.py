"""Migrations of the database, as Alembic revisions; `taskqueue.sql.migrate` runs them."""
