"""What both databases share: tables, statements, pages, dead letters, threads that write and read."""
