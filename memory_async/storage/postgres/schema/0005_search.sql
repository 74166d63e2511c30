-- Full text. What is searched together has an owner: a user (user/ID) their turns, a session that
-- nobody owns its own, a partition the records in it. Every word is indexed with a hash of its owner
-- before it, so that nobody's search reads, or counts, what others said.
--
-- body and label are JSON strings: PostgreSQL's own text has no NUL.
CREATE TABLE memory_async.texts (
    id         bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace  text    COLLATE "C" NOT NULL,
    kind       text    COLLATE "C" NOT NULL,
    partition  text    COLLATE "C" NOT NULL,
    owner      text    COLLATE "C" NOT NULL,
    session    bigint,
    seq        bigint,
    record_id  text    COLLATE "C",
    part       integer NOT NULL,
    label      text    NOT NULL,
    body       text    NOT NULL,
    words      tsvector NOT NULL,
    UNIQUE (session, seq, part),
    FOREIGN KEY (session, seq) REFERENCES memory_async.turns ON DELETE CASCADE,
    FOREIGN KEY (namespace, kind, record_id, partition)
        REFERENCES memory_async.records ON DELETE CASCADE
);
CREATE INDEX texts_by_record ON memory_async.texts (namespace, kind, record_id, partition)
    WHERE record_id IS NOT NULL;
CREATE INDEX texts_by_word ON memory_async.texts USING gin (words);

CREATE FUNCTION memory_async.lexeme(in_namespace text, in_kind text, in_owner text, term text)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT left(md5(in_namespace || '/' || in_kind || '/' || in_owner), 16) || term
$$;

CREATE FUNCTION memory_async.turn_trimmed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM memory_async.texts x WHERE x.session = NEW.session AND x.seq = NEW.seq;
    RETURN NULL;
END $$;
CREATE TRIGGER turns_trimmed AFTER UPDATE OF payload ON memory_async.turns
    FOR EACH ROW WHEN (NEW.payload IS NULL) EXECUTE FUNCTION memory_async.turn_trimmed();

-- What is stored there is found by these texts (part, label, body, words), and no longer by others.
CREATE FUNCTION memory_async.index_texts(
    in_namespace text, in_kind text, in_partition text, in_id text, in_texts jsonb,
    in_created_at bigint DEFAULT NULL  -- of what is meant, should there be another by now
) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    whose text := in_partition;
    place record;
BEGIN
    -- As apply() does: whoever changes this partition waits.
    PERFORM pg_advisory_xact_lock(hashtextextended(in_namespace || '/' || in_partition, 0));
    IF in_kind = 'turn' THEN
        SELECT t.session, t.seq, h.user_id INTO place
        FROM memory_async.headers h JOIN memory_async.turns t ON t.session = h.id
        WHERE h.namespace = in_namespace AND in_partition = 'session/' || h.session_id
          AND h.session_id = substr(in_partition, 9)
          AND t.run_id = in_id AND t.payload IS NOT NULL
          AND t.created_at = coalesce(in_created_at, t.created_at);
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        whose := coalesce('user/' || place.user_id, in_partition);
        DELETE FROM memory_async.texts x WHERE x.session = place.session AND x.seq = place.seq;
    ELSE
        SELECT NULL::bigint AS session, NULL::bigint AS seq INTO place
        FROM memory_async.records r
        WHERE r.namespace = in_namespace AND r.kind = in_kind
          AND r.record_id = in_id AND r.partition = in_partition
          AND r.created_at = coalesce(in_created_at, r.created_at);
        IF NOT FOUND THEN
            RETURN false;
        END IF;
        DELETE FROM memory_async.texts x
        WHERE x.namespace = in_namespace AND x.kind = in_kind
          AND x.record_id = in_id AND x.partition = in_partition;
    END IF;
    INSERT INTO memory_async.texts (namespace, kind, partition, owner, session, seq, record_id,
                                    part, label, body, words)
    SELECT in_namespace, in_kind, in_partition, whose, place.session, place.seq,
           CASE WHEN in_kind <> 'turn' THEN in_id END,
           (said ->> 'part')::integer, said ->> 'label', said ->> 'body',
           array_to_tsvector(ARRAY(
               SELECT memory_async.lexeme(in_namespace, in_kind, whose, term)
               FROM jsonb_array_elements_text(said -> 'words') term))
    FROM jsonb_array_elements(in_texts) said;
    RETURN true;
END $$;

-- Terms are letters and digits only, so that a quote around each makes it a tsquery.
CREATE FUNCTION memory_async.search(
    in_namespace text, in_kind text, in_partition text, in_user text,
    in_terms text[], in_limit integer, in_around integer, in_most integer
) RETURNS TABLE (
    out_partition text, out_id text, out_part integer, out_seq bigint, out_body text,
    out_label text, out_score float8
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    owners text[];
BEGIN
    IF in_kind = 'turn' AND in_user IS NOT NULL THEN
        owners := ARRAY['user/' || in_user];
    ELSIF in_kind = 'turn' AND in_partition IS NOT NULL THEN
        SELECT array_agg(coalesce('user/' || h.user_id, in_partition)) INTO owners
        FROM memory_async.headers h
        WHERE h.namespace = in_namespace AND h.session_id = substr(in_partition, 9);
    ELSIF in_partition IS NOT NULL THEN
        owners := ARRAY[in_partition];
    ELSE
        SELECT array_agg(DISTINCT x.owner) INTO owners FROM memory_async.texts x
        WHERE x.namespace = in_namespace AND x.kind = in_kind;
    END IF;
    RETURN QUERY
    WITH hit AS MATERIALIZED (
        SELECT found.id, term
        FROM unnest(owners) whose CROSS JOIN unnest(in_terms) term CROSS JOIN LATERAL (
            SELECT among.id FROM (
                SELECT x.id FROM memory_async.texts x
                WHERE x.words @@ (
                        '''' || memory_async.lexeme(in_namespace, in_kind, whose, term) || ''''
                    )::tsquery
                  AND x.namespace = in_namespace AND x.kind = in_kind AND x.owner = whose
                  AND (in_partition IS NULL OR x.partition = in_partition)
                  AND (in_kind = 'turn' OR EXISTS (
                        SELECT 1 FROM memory_async.records r
                        WHERE r.namespace = in_namespace AND r.kind = in_kind
                          AND r.record_id = x.record_id AND r.partition = x.partition
                          AND (in_user IS NULL OR r.user_id = in_user)
                          AND (r.expires_at IS NULL OR r.expires_at > memory_async.now_micros())))
                OFFSET 0  -- or the newest of all would be looked through, whoever they are of
            ) among ORDER BY among.id DESC LIMIT in_most
        ) found
    ), scored AS MATERIALIZED (
        SELECT each.id, sum(ln(1 + 10000.0 / (each.holders + 0.5)))::float8 AS score
        FROM (SELECT id, count(*) OVER (PARTITION BY term) AS holders FROM hit) each
        GROUP BY each.id
    ), best AS MATERIALIZED (
        SELECT id, score FROM scored ORDER BY score DESC, id DESC LIMIT in_limit
    ), wanted AS (
        SELECT id FROM best
        UNION
        SELECT near.id FROM best JOIN memory_async.texts x ON x.id = best.id
        CROSS JOIN LATERAL (
            (SELECT b.id FROM memory_async.texts b
             WHERE b.session = x.session AND (b.seq, b.part) < (x.seq, x.part)
             ORDER BY b.seq DESC, b.part DESC LIMIT in_around)
            UNION ALL
            (SELECT a.id FROM memory_async.texts a
             WHERE a.session = x.session AND (a.seq, a.part) > (x.seq, x.part)
             ORDER BY a.seq, a.part LIMIT in_around)
        ) near
    )
    SELECT x.partition, coalesce(x.record_id, t.run_id), x.part, coalesce(x.seq, 0), x.body,
           x.label, coalesce(scored.score, 0)
    FROM wanted JOIN memory_async.texts x ON x.id = wanted.id
    LEFT JOIN memory_async.turns t ON t.session = x.session AND t.seq = x.seq
    LEFT JOIN scored ON scored.id = wanted.id
    LEFT JOIN best ON best.id = wanted.id
    ORDER BY best.id IS NULL, coalesce(scored.score, 0) DESC, x.id DESC;
END $$;
