"""A PostgreSQL server that speaks TLS: its certificate is checked as the options of DATABASE_URL say."""

import os
import shutil

import psycopg
import pytest
from certificates import Authority

from taskqueue.errors import UnsuitableAddress
from taskqueue.postgres import open_postgres


@pytest.fixture
def encrypted(own_postgres, tmp_path):
    """A server that has a certificate for 127.0.0.1 and takes nothing else than TLS; and its authority."""
    authority = Authority(tmp_path / "authority")
    for name, file in authority.sign("server", "127.0.0.1")._asdict().items():
        place = own_postgres.folder / f"{name}.pem"
        shutil.copy(file, place)
        place.chmod(0o600)
        if os.getuid() == 0:
            shutil.chown(place, "postgres", "postgres")
    rules = own_postgres.folder / "rules.conf"
    rules.write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
    with psycopg.connect(own_postgres.url, autocommit=True) as connection:
        for name, value in (
            ("ssl_cert_file", own_postgres.folder / "certificate.pem"),
            ("ssl_key_file", own_postgres.folder / "key.pem"),
            ("hba_file", rules),
            ("ssl", "on"),
        ):
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    rules.chmod(0o644)
    own_postgres.stop()
    own_postgres.start()
    return own_postgres, authority


def test_tls_is_spoken_and_the_certificate_checked(run, encrypted, tmp_path, make_task):
    server, authority = encrypted
    trusting = f"{server.url}?sslmode=verify-full&sslrootcert={authority.file}"
    with psycopg.connect(trusting) as connection:
        assert connection.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone() == (True,)
    other = Authority(tmp_path / "other").file

    async def scenario():
        async with open_postgres(trusting) as store:
            await store.check_writing()
        for url, told in (
            (f"{server.url}?sslmode=verify-full&sslrootcert={other}", "certificate .* is not accepted"),
            (trusting.replace("127.0.0.1", "localhost"), "certificate .* is not accepted"),
            (f"{server.url}?sslmode=disable", "admits nobody"),
        ):
            with pytest.raises(UnsuitableAddress, match=told):
                async with open_postgres(url):
                    raise AssertionError("it was let in")

    run(scenario())
