-- One batch of writes in one call, so in one round trip: checked as a whole, then written.
--
-- ops is a JSON list of writes; payloads are the texts they refer to by number, from 1. When a
-- condition fails nothing is written, and `failed` is the number of the write, from 0, `stored` the
-- version there is; or, if `foreign_owner`, the session's owner. `known`: the run was in the log
-- already, whose turn then comes back.
CREATE FUNCTION memory_async.apply(
    IN in_namespace text, IN in_partition text, IN in_ops text, IN payloads text[],
    OUT failed integer, OUT foreign_owner boolean, OUT stored text, OUT did boolean[],
    OUT known boolean, OUT seq bigint, OUT created_at bigint, OUT usage text, OUT payload text
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    ops      CONSTANT jsonb := in_ops;
    size     CONSTANT integer := jsonb_array_length(ops);
    now      CONSTANT bigint := memory_async.now_micros();
    op       jsonb;
    kind     text;
    header   record;
    cursor   bigint;
    todo     boolean;
    expiring boolean := false;
BEGIN
    known := false;
    -- Batches of one partition follow one another, so that what is checked is still so when it is
    -- written, also of rows that are not there yet; no batch holds two such locks.
    PERFORM pg_advisory_xact_lock(hashtextextended(in_namespace || '/' || in_partition, 0));

    SELECT h.id, h.user_id, h.version, h.last_seq, h.created_at INTO header
    FROM memory_async.headers h
    WHERE in_partition LIKE 'session/%'
      AND h.namespace = in_namespace AND h.session_id = substr(in_partition, 9);

    IF header.id IS NOT NULL THEN
        FOR i IN 0 .. size - 1 LOOP
            op := ops -> i;
            IF op ->> 'do' IN ('append', 'header')
               AND header.user_id IS DISTINCT FROM op ->> 'user_id' THEN
                failed := i;
                foreign_owner := true;
                stored := header.user_id;
                RETURN;
            END IF;
        END LOOP;
        FOR i IN 0 .. size - 1 LOOP
            op := ops -> i;
            IF op ->> 'do' = 'append' THEN
                SELECT t.seq, t.created_at, t.usage::text, t.payload::text
                INTO seq, created_at, usage, payload
                FROM memory_async.turns t
                WHERE t.session = header.id AND t.run_id = op ->> 'run_id';
                IF FOUND THEN
                    known := true;
                    RETURN;
                END IF;
            END IF;
        END LOOP;
    END IF;

    FOR i IN 0 .. size - 1 LOOP
        op := ops -> i;
        kind := op ->> 'do';
        todo := true;
        stored := NULL;
        IF kind = 'advance' THEN
            SELECT j.through INTO cursor FROM memory_async.jobs j
            WHERE j.session = header.id AND j.job = op ->> 'job';
            IF cursor IS DISTINCT FROM (op ->> 'expected')::bigint
               OR header.last_seq < (op ->> 'through')::bigint
               OR header.created_at <> (op ->> 'born')::bigint THEN
                failed := i;
                RETURN;
            END IF;
        ELSIF kind IN ('put', 'header', 'delete', 'expect') THEN
            IF op ->> 'kind' = 'session' THEN
                stored := header.version;
            ELSE
                SELECT r.version INTO stored FROM memory_async.records r
                WHERE r.namespace = in_namespace AND r.kind = op ->> 'kind'
                  AND r.record_id = op ->> 'id' AND r.partition = in_partition
                  AND (r.expires_at IS NULL OR r.expires_at > now);
            END IF;
            IF stored = op ->> 'version' THEN
                todo := false;  -- this very write was applied before
            ELSIF stored IS NOT NULL AND (op -> 'absent')::boolean
                  OR stored IS DISTINCT FROM coalesce(op ->> 'when', stored) THEN
                failed := i;
                RETURN;
            ELSIF kind = 'delete' THEN
                todo := stored IS NOT NULL;
            ELSE
                todo := kind <> 'expect';
            END IF;
        END IF;
        did[i + 1] := todo;
    END LOOP;

    FOR i IN 0 .. size - 1 LOOP
        CONTINUE WHEN NOT did[i + 1];
        op := ops -> i;
        CASE op ->> 'do'
        WHEN 'append' THEN
            IF header.id IS NULL THEN
                header.id := memory_async.new_header(in_namespace, op, payloads);
            END IF;
            IF op ? 'due' THEN
                INSERT INTO memory_async.jobs (session, job)
                SELECT header.id, due FROM jsonb_array_elements_text(op -> 'due') due
                ON CONFLICT DO NOTHING;
            END IF;
            UPDATE memory_async.headers h
            SET last_seq = h.last_seq + 1,
                keep_turns = h.keep_turns OR (op ->> 'keep_turns')::boolean,
                updated_at = greatest(h.updated_at, (op ->> 'run_at')::bigint),
                -- After an append every registered job lags.
                lagging = EXISTS (SELECT 1 FROM memory_async.jobs j WHERE j.session = h.id)
            WHERE h.id = header.id
            RETURNING h.last_seq INTO seq;
            INSERT INTO memory_async.turns (session, seq, run_id, created_at, usage, payload)
            VALUES (header.id, seq, op ->> 'run_id', (op ->> 'run_at')::bigint,
                    payloads[(op ->> 'usage')::integer]::json,
                    payloads[(op ->> 'turn')::integer]::json);
        WHEN 'header' THEN
            IF header.id IS NULL THEN
                header.id := memory_async.new_header(in_namespace, op, payloads);
            ELSE
                UPDATE memory_async.headers h
                SET updated_at = (op ->> 'updated_at')::bigint, version = op ->> 'version',
                    payload = payloads[(op ->> 'payload')::integer]::json
                WHERE h.id = header.id;
            END IF;
        WHEN 'put' THEN
            expiring := expiring OR op ? 'expires_at';
            INSERT INTO memory_async.records AS r (
                namespace, kind, partition, record_id, user_id, status, tags,
                created_at, updated_at, expires_at, version, payload
            ) VALUES (
                in_namespace, op ->> 'kind', in_partition, op ->> 'id', op ->> 'user_id',
                op ->> 'status',
                (SELECT array_agg(tag) FROM jsonb_array_elements_text(op -> 'tags') tag),
                (op ->> 'created_at')::bigint, (op ->> 'updated_at')::bigint,
                (op ->> 'expires_at')::bigint, op ->> 'version',
                payloads[(op ->> 'payload')::integer]::json
            ) ON CONFLICT (namespace, kind, record_id, partition) DO UPDATE SET
                user_id = excluded.user_id, status = excluded.status, tags = excluded.tags,
                created_at = excluded.created_at, updated_at = excluded.updated_at,
                expires_at = excluded.expires_at, version = excluded.version,
                payload = excluded.payload;
            IF op ? 'texts' THEN
                PERFORM memory_async.index_texts(in_namespace, op ->> 'kind', in_partition,
                                                 op ->> 'id', op -> 'texts');
            ELSE
                DELETE FROM memory_async.texts x
                WHERE x.namespace = in_namespace AND x.kind = op ->> 'kind'
                  AND x.record_id = op ->> 'id' AND x.partition = in_partition;
            END IF;
        WHEN 'advance' THEN
            UPDATE memory_async.jobs j
            SET through = (op ->> 'through')::bigint,
                value = coalesce(payloads[(op ->> 'value')::integer]::json, j.value)
            WHERE j.session = header.id AND j.job = op ->> 'job';
            UPDATE memory_async.headers h
            SET lagging = EXISTS (
                SELECT 1 FROM memory_async.jobs j
                WHERE j.session = h.id AND j.through < h.last_seq)
            WHERE h.id = header.id;
            PERFORM memory_async.trim_log(header.id, NULL);
        WHEN 'trim' THEN
            did[i + 1] := memory_async.trim_log(header.id, (op ->> 'through')::bigint);
        WHEN 'delete' THEN
            IF op ->> 'kind' = 'session' THEN
                DELETE FROM memory_async.headers h WHERE h.id = header.id;
                header.id := NULL;
            ELSE
                DELETE FROM memory_async.records r
                WHERE r.namespace = in_namespace AND r.kind = op ->> 'kind'
                  AND r.record_id = op ->> 'id' AND r.partition = in_partition;
            END IF;
        WHEN 'drop' THEN
            -- Apart, so that each is planned for an index of its own.
            IF op ? 'prefix' THEN
                DELETE FROM memory_async.records r
                WHERE r.namespace = in_namespace AND r.partition = in_partition
                  AND r.kind = op ->> 'kind'
                  -- Also the last of all ids that begin so is below this.
                  AND r.record_id BETWEEN op ->> 'prefix'
                      AND (op ->> 'prefix') || repeat(chr(1114111), 1024);
            ELSE
                DELETE FROM memory_async.records r
                WHERE r.namespace = in_namespace AND r.partition = in_partition
                  AND r.kind = coalesce(op ->> 'kind', r.kind);
            END IF;
            todo := FOUND;
            IF NOT op ? 'kind' THEN
                DELETE FROM memory_async.headers h WHERE h.id = header.id;
                todo := todo OR FOUND;
                header.id := NULL;
            END IF;
            did[i + 1] := todo;
        END CASE;
    END LOOP;

    -- Who lets things expire clears a few that have; last, as from here on nobody is waited for.
    IF expiring THEN
        DELETE FROM memory_async.records r USING (
            SELECT e.namespace, e.kind, e.record_id, e.partition FROM memory_async.records e
            WHERE e.expires_at <= now ORDER BY e.expires_at LIMIT 10 FOR UPDATE SKIP LOCKED
        ) old
        WHERE (r.namespace, r.kind, r.record_id, r.partition)
            = (old.namespace, old.kind, old.record_id, old.partition);
    END IF;
END $$;

CREATE FUNCTION memory_async.new_header(in_namespace text, op jsonb, payloads text[])
RETURNS bigint LANGUAGE sql VOLATILE AS $$
    INSERT INTO memory_async.headers (namespace, session_id, user_id, agent_id, keep_turns,
                                      created_at, updated_at, version, payload)
    VALUES (in_namespace, op ->> 'id', op ->> 'user_id', op ->> 'agent_id',
            (op ->> 'keep_turns')::boolean, (op ->> 'created_at')::bigint,
            (op ->> 'updated_at')::bigint, op ->> 'version',
            payloads[(op ->> 'payload')::integer]::json)
    RETURNING id
$$;

-- Never past the smallest cursor, never in a session that keeps its turns.
CREATE FUNCTION memory_async.trim_log(in_session bigint, in_through bigint)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    start bigint;
    reach bigint;
BEGIN
    SELECT h.trimmed, least(in_through, h.last_seq,
           (SELECT min(j.through) FROM memory_async.jobs j WHERE j.session = h.id))
    INTO start, reach
    FROM memory_async.headers h WHERE h.id = in_session AND NOT h.keep_turns;
    IF reach IS NULL OR reach <= start THEN
        RETURN false;
    END IF;
    UPDATE memory_async.headers SET trimmed = reach WHERE id = in_session;
    UPDATE memory_async.turns SET payload = NULL
    WHERE session = in_session AND seq > start AND seq <= reach;
    RETURN true;
END $$;
