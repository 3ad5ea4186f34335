"""The tables. On SQLite a task's row *is* its queue entry."""

import sqlalchemy as sa
from sqlalchemy import Column, Index, Integer, String, Table, Text

metadata = sa.MetaData()

#: The group of tasks without one: they take turns with the groups. No group has this name.
NO_GROUP = "*"

_KEY = sa.BigInteger().with_variant(Integer, "sqlite")

tasks = Table(
    "tasks",
    metadata,
    #: order of arrival
    Column("seq", _KEY, primary_key=True),
    Column("id", String(128), nullable=False, unique=True),
    Column("algorithm", String(63), nullable=False),
    Column("payload", sa.LargeBinary, nullable=False),
    #: empty: a tombstone, cancelled before the task itself was ever seen
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    #: of the current or next run; 1 is the first
    Column("attempt", Integer, nullable=False),
    #: when it may be claimed: 0 at once, -1 in its group's turn, later for a delay or a lease (an expired lease is a
    #: redelivery by itself); NULL exactly when the task has ended
    Column("available_at", sa.Double),
    #: random number of the last claim; fences settling
    Column("receipt", sa.BigInteger),
    #: how often it was claimed and not settled
    Column("delivery_count", Integer, nullable=False, server_default=sa.text("0")),
    Column("created_at", sa.Double, nullable=False),
    Column("updated_at", sa.Double, nullable=False),
    Column("finished_at", sa.Double),
    Column("expires_at", sa.Double),
    Column("result", sa.LargeBinary),
    Column("error_code", String(32)),
    Column("error_message", Text),
    #: JSON list of the contract's HistoryEntry
    Column("history", Text),
    Column("placed_attempt", Integer),
    Column("placed_runner", Text),
    Column("placed_boot", Text),
    Column("runner", Text),
    Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    Column("progress_fraction", sa.Double),
    Column("progress_message", Text),
    Column("replays", Integer, nullable=False, server_default=sa.text("0")),
    Column("reply_to", Text),
    Column("correlation_id", Text),
    #: key id of the token that submitted it, if any; also of a tombstone
    Column("submitted_by", String(32)),
    #: whose turn it waits for; beside a broker every task that waits here has one (`NO_GROUP`), no other has
    Column("task_group", String(64)),
    #: when its first attempt may start
    Column("not_before", sa.Double),
)

_waiting = tasks.c.available_at.is_not(None)
_finished = tasks.c.finished_at.is_not(None)

# Claims walk it in order; with the state it also answers the counts of what has not ended.
Index(
    "tasks_claim",
    tasks.c.algorithm,
    tasks.c.available_at,
    tasks.c.seq,
    tasks.c.state,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
# Retention, lists, and the counts of what has ended. Grows at its end only.
Index(
    "tasks_finished",
    tasks.c.finished_at,
    tasks.c.algorithm,
    tasks.c.state,
    sqlite_where=_finished,
    postgresql_where=_finished,
)
_expiring = tasks.c.expires_at.is_not(None) & tasks.c.available_at.is_not(None)
Index("tasks_expiring", tasks.c.expires_at, sqlite_where=_expiring, postgresql_where=_expiring)
# The tasks of one token. Tasks without one cost it nothing.
_owned = tasks.c.submitted_by.is_not(None)
Index("tasks_submitted_by", tasks.c.submitted_by, tasks.c.seq, sqlite_where=_owned, postgresql_where=_owned)
# Their counts, and the oldest that waits, without those of others.
_owned_by = (tasks.c.submitted_by, tasks.c.algorithm)
Index("tasks_owned_states", *_owned_by, tasks.c.state, sqlite_where=_owned, postgresql_where=_owned)
_owned_waiting = _owned & _waiting
Index("tasks_owned_waiting", *_owned_by, tasks.c.seq, sqlite_where=_owned_waiting, postgresql_where=_owned_waiting)

# The groups that have a turn, one after the other, and each one's oldest task; then those that are late.
_grouped = tasks.c.task_group.is_not(None)
_grouped_waiting = _grouped & _waiting
Index(
    "tasks_groups",
    tasks.c.algorithm,
    tasks.c.available_at,
    tasks.c.task_group,
    tasks.c.seq,
    sqlite_where=_grouped_waiting,
    postgresql_where=_grouped_waiting,
)
# How many of a group are claimed.
#: The number is part of the text: only so can SQLite tell that a query is about the rows of the index.
IS_OUT = tasks.c.receipt.is_not(None) & (tasks.c.delivery_count > sa.literal_column("0"))
_grouped_out = _grouped & IS_OUT
Index(
    "tasks_groups_out",
    tasks.c.algorithm,
    tasks.c.task_group,
    sqlite_where=_grouped_out,
    postgresql_where=_grouped_out,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("dead_id", _KEY, primary_key=True),
    Column("task_id", String(128), nullable=False, index=True),
    Column("algorithm", String(63), nullable=False),
    Column("code", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text),
    Column("body", sa.LargeBinary, nullable=False),
    Column("headers", Text, nullable=False),
    Column("history", Text),
    Column("created_at", sa.Double, nullable=False),
    Column("replayed_at", sa.Double),
    Column("discarded_at", sa.Double),
    #: the attempt that a replay began; with `replayed_at` NULL, its message may not have been sent
    Column("replay_attempt", Integer),
    #: as its task's
    Column("submitted_by", String(32)),
    # an id is never used twice, also when the newest dead letter was removed
    sqlite_autoincrement=True,
)

#: Why tasks of an algorithm wait although runners offer it, as noted by a controller.
waiting_notes = Table(
    "waiting_notes",
    metadata,
    Column("algorithm", String(63), primary_key=True),
    Column("note", Text, nullable=False),
    Column("noted_at", sa.Double, nullable=False),
)

# Retention of dead letters that were replayed or discarded.
_replayed = dead_letters.c.replayed_at.is_not(None)
Index("dead_letters_replayed", dead_letters.c.replayed_at, sqlite_where=_replayed, postgresql_where=_replayed)
_discarded = dead_letters.c.discarded_at.is_not(None)
Index("dead_letters_discarded", dead_letters.c.discarded_at, sqlite_where=_discarded, postgresql_where=_discarded)
_letter_owned = dead_letters.c.submitted_by.is_not(None)
Index(
    "dead_letters_submitted_by",
    dead_letters.c.submitted_by,
    dead_letters.c.dead_id,
    sqlite_where=_letter_owned,
    postgresql_where=_letter_owned,
)

tokens = Table(
    "tokens",
    metadata,
    Column("seq", _KEY, primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    #: SHA-256 of the token's text, in hexadecimal
    Column("secret_hash", String(64), nullable=False),
    Column("name", Text, nullable=False),
    #: both with spaces between them
    Column("scopes", Text, nullable=False),
    Column("algorithms", Text, nullable=False),
    Column("created_at", sa.Double, nullable=False),
    Column("expires_at", sa.Double),
    Column("last_used_at", sa.Double),
    Column("revoked_at", sa.Double),
    #: what it may send at most; NULL: as much as it likes
    Column("rate_per_second", sa.Double),
    Column("burst", Integer),
    Column("bytes_per_second", sa.BigInteger),
    Column("most_waiting", Integer),
)

#: Algorithms whose tasks are not handed out.
paused_algorithms = Table(
    "paused_algorithms",
    metadata,
    Column("algorithm", String(63), primary_key=True),
    #: name and key id of who did it
    Column("paused_by", Text, nullable=False),
    Column("paused_at", sa.Double, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("audit_id", _KEY, primary_key=True),
    #: random; the transactions of one call share an entry
    Column("call", String(32), nullable=False, unique=True),
    Column("created_at", sa.Double, nullable=False, index=True),
    Column("who", String(32), nullable=False),
    Column("action", String(32), nullable=False),
    #: a JSON object, and a JSON list
    Column("params", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("ids", Text, nullable=False),
    Column("client", Text),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    #: SHA-256 of the cookie, in hexadecimal; of the token that was shown for it
    Column("session_hash", String(64), primary_key=True),
    Column("key_id", String(32), nullable=False),
    Column("token_hash", String(64), nullable=False),
    Column("expires_at", sa.Double, nullable=False, index=True),
)

#: Random keys that the processes with this database share.
environment_keys = Table(
    "environment_keys",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)
