-- For people at psql; the library reads none of these.

-- A payload as jsonb, which has no NUL: U+FFFD stands for it. NULL when it cannot be shown, so that
-- one row never hides the others.
CREATE FUNCTION memory_async.readable(payload json) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    IF strpos(payload::text, '\u0000') = 0 THEN
        RETURN payload::jsonb;
    END IF;
    RETURN regexp_replace(payload::text, '(?<!\\)((?:\\\\)*)\\u0000', '\1\\ufffd', 'g')::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;

CREATE FUNCTION memory_async.at(micros bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT AS
    $$SELECT '1970-01-01 00:00:00+00'::timestamptz + micros * interval '1 microsecond'$$;

-- The text of a message's content, be it text or a list of parts.
CREATE FUNCTION memory_async.said(content jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE jsonb_typeof(content)
        WHEN 'string' THEN content #>> '{}'
        WHEN 'array' THEN (
            SELECT string_agg(coalesce(part ->> 'text', '[' || (part ->> 'type') || ']'), E'\n')
            FROM jsonb_array_elements(content) part)
    END
$$;

CREATE VIEW memory_async.conversations AS
SELECT h.namespace, h.session_id, h.user_id, t.seq AS turn, each.line::integer,
       memory_async.at(t.created_at) AS saved_at,
       message ->> 'role' AS role,
       memory_async.said(message -> 'content') AS content,
       message -> 'tool_calls' AS tool_calls,
       t.run_id
FROM memory_async.headers h
JOIN memory_async.turns t ON t.session = h.id
CROSS JOIN LATERAL jsonb_path_query(memory_async.readable(t.payload), '$.messages[*]')
    WITH ORDINALITY AS each (written, line)
CROSS JOIN LATERAL (SELECT coalesce(written -> 'raw', written)) AS as_given (message);
COMMENT ON VIEW memory_async.conversations IS
    'Every message of every turn that was not trimmed: ORDER BY turn, line.';

CREATE VIEW memory_async.sessions AS
SELECT h.namespace, h.session_id, h.user_id, h.agent_id, h.last_seq AS turns, h.trimmed,
       memory_async.readable(h.payload) -> 'metadata' AS metadata,
       (SELECT memory_async.readable(j.value) #>> '{}' FROM memory_async.jobs j
        WHERE j.session = h.id AND j.job = 'summary') AS summary,
       h.lagging, memory_async.at(h.created_at) AS created_at,
       memory_async.at(h.updated_at) AS updated_at
FROM memory_async.headers h;
COMMENT ON VIEW memory_async.sessions IS 'Sessions, with their metadata and summary.';

CREATE VIEW memory_async.users AS
SELECT r.namespace, r.user_id, r.record_id AS profile,
       memory_async.readable(r.payload) -> 'traits' AS traits,
       (SELECT count(*) FROM memory_async.headers h
        WHERE h.namespace = r.namespace AND h.user_id = r.user_id) AS sessions,
       memory_async.at(r.updated_at) AS updated_at
FROM memory_async.records r
WHERE r.kind = 'profile' AND r.user_id IS NOT NULL;
COMMENT ON VIEW memory_async.users IS 'What is known of each user, by profile.';
