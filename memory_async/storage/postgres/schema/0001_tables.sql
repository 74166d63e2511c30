-- "memory_async" stands for the schema: the driver puts in the one it was given.
-- Ids are compared by their bytes (COLLATE "C"), whatever the database's own collation is.
-- All times are UTC microseconds. Payloads are json, not jsonb: text as it was written, NUL escapes
-- included.
CREATE TABLE memory_async.schema_version (version integer NOT NULL);

-- The turn log: the headers of the sessions, their jobs' cursors, their turns.
CREATE TABLE memory_async.headers (
    id          bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace   text    COLLATE "C" NOT NULL,
    session_id  text    COLLATE "C" NOT NULL,
    user_id     text    COLLATE "C",
    agent_id    text    COLLATE "C",
    last_seq    bigint  NOT NULL DEFAULT 0,
    trimmed     bigint  NOT NULL DEFAULT 0,
    keep_turns  boolean NOT NULL,
    lagging     boolean NOT NULL DEFAULT false,
    created_at  bigint  NOT NULL,
    updated_at  bigint  NOT NULL,
    version     text    COLLATE "C" NOT NULL,
    payload     json    NOT NULL,
    UNIQUE (namespace, session_id)
) WITH (fillfactor = 80);  -- room to update a header within its page, which moves no index
CREATE INDEX headers_by_time ON memory_async.headers (namespace, created_at, session_id);
CREATE INDEX headers_by_user ON memory_async.headers (namespace, user_id, created_at, session_id)
    WHERE user_id IS NOT NULL;
CREATE INDEX headers_lagging ON memory_async.headers (namespace, created_at, session_id)
    WHERE lagging;

CREATE TABLE memory_async.jobs (
    session  bigint NOT NULL REFERENCES memory_async.headers ON DELETE CASCADE,
    job      text   COLLATE "C" NOT NULL,
    through  bigint NOT NULL DEFAULT 0,
    value    json,
    PRIMARY KEY (session, job)
) WITH (fillfactor = 80);

CREATE TABLE memory_async.turns (
    session     bigint NOT NULL REFERENCES memory_async.headers ON DELETE CASCADE,
    seq         bigint NOT NULL,
    run_id      text   COLLATE "C" NOT NULL,
    created_at  bigint NOT NULL,
    usage       json,
    payload     json,  -- NULL once the turn was trimmed
    PRIMARY KEY (session, seq),
    UNIQUE (session, run_id)
);

-- Everything else: a few indexed fields and an opaque payload.
CREATE TABLE memory_async.records (
    namespace   text   COLLATE "C" NOT NULL,
    kind        text   COLLATE "C" NOT NULL,
    partition   text   COLLATE "C" NOT NULL,
    record_id   text   COLLATE "C" NOT NULL,
    user_id     text   COLLATE "C",
    status      text   COLLATE "C",
    tags        text[] COLLATE "C",
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    expires_at  bigint,
    version     text   COLLATE "C" NOT NULL,
    payload     json   NOT NULL,
    PRIMARY KEY (namespace, kind, record_id, partition)
) WITH (fillfactor = 80);
CREATE INDEX records_by_partition
    ON memory_async.records (namespace, partition, kind, created_at, record_id);
CREATE INDEX records_by_time
    ON memory_async.records (namespace, kind, created_at, record_id, partition);
CREATE INDEX records_by_user ON memory_async.records (namespace, kind, user_id, created_at)
    WHERE user_id IS NOT NULL;
CREATE INDEX records_by_status ON memory_async.records (namespace, kind, status, created_at)
    WHERE status IS NOT NULL;
CREATE INDEX records_by_tag ON memory_async.records USING gin (tags) WHERE tags IS NOT NULL;
CREATE INDEX records_expiring ON memory_async.records (expires_at) WHERE expires_at IS NOT NULL;

-- The clock that leases and expiry are compared with.
CREATE FUNCTION memory_async.now_micros() RETURNS bigint LANGUAGE sql VOLATILE AS
    'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint';
