"""SQL: tables, statements, one writing connection and a few reading ones."""
