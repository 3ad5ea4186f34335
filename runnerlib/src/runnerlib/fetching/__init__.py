"""Provides ``fetch`` to handlers: safe downloads of URLs that senders chose.

:mod:`fetch` is what authors call and talks to servers, :mod:`addresses` (pure) says which hosts may be connected to,
and :mod:`urls` (pure) reads URLs and what ``data:`` URLs carry.
"""
