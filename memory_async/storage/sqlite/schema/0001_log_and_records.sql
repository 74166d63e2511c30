CREATE TABLE memory_schema (version INTEGER NOT NULL);

-- The turn log, with the session headers.
CREATE TABLE memory_sessions (
    id          INTEGER PRIMARY KEY,
    namespace   TEXT    NOT NULL,
    session_id  TEXT    NOT NULL,
    user_id     TEXT,
    agent_id    TEXT,
    last_seq    INTEGER NOT NULL DEFAULT 0,
    trimmed     INTEGER NOT NULL DEFAULT 0,
    keep_turns  INTEGER NOT NULL,
    lagging     INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,              -- all times: UTC microseconds
    updated_at  INTEGER NOT NULL,
    version     TEXT    NOT NULL,
    payload     TEXT    NOT NULL,
    UNIQUE (namespace, session_id)
);
CREATE INDEX memory_sessions_by_time ON memory_sessions (namespace, created_at, session_id);
CREATE INDEX memory_sessions_by_user ON memory_sessions (namespace, user_id, created_at, session_id)
    WHERE user_id IS NOT NULL;
CREATE INDEX memory_sessions_lagging ON memory_sessions (namespace, created_at, session_id)
    WHERE lagging = 1;

CREATE TABLE memory_jobs (
    session  INTEGER NOT NULL REFERENCES memory_sessions ON DELETE CASCADE,
    job      TEXT    NOT NULL,
    through  INTEGER NOT NULL DEFAULT 0,
    value    TEXT,
    PRIMARY KEY (session, job)
) WITHOUT ROWID;

CREATE TABLE memory_turns (
    id          INTEGER PRIMARY KEY,           -- session << 32 | seq: a session's turns side by side
    session     INTEGER NOT NULL REFERENCES memory_sessions ON DELETE CASCADE,
    run_id      TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    usage       TEXT,
    payload     TEXT,                          -- NULL once the turn was trimmed
    UNIQUE (session, run_id)
);

-- Everything else: a few indexed fields and an opaque payload.
CREATE TABLE memory_records (
    id          INTEGER PRIMARY KEY,
    namespace   TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    partition   TEXT    NOT NULL,
    record_id   TEXT    NOT NULL,
    user_id     TEXT,
    status      TEXT,
    tags        TEXT,                          -- a JSON list, copied into memory_tags
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    version     TEXT    NOT NULL,
    payload     TEXT    NOT NULL,
    UNIQUE (namespace, kind, record_id, partition)
);
CREATE INDEX memory_records_by_partition
    ON memory_records (namespace, partition, kind, created_at, record_id);
CREATE INDEX memory_records_by_user ON memory_records (namespace, kind, user_id, created_at)
    WHERE user_id IS NOT NULL;
CREATE INDEX memory_records_by_status ON memory_records (namespace, kind, status, created_at)
    WHERE status IS NOT NULL;
CREATE INDEX memory_records_expiring ON memory_records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE memory_tags (
    tag     TEXT    NOT NULL,
    record  INTEGER NOT NULL REFERENCES memory_records ON DELETE CASCADE,
    PRIMARY KEY (tag, record)
) WITHOUT ROWID;
CREATE INDEX memory_tags_by_record ON memory_tags (record);
