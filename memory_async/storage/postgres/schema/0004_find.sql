-- Listings, newest first: conditions that are NULL are not asked for.
--
-- Which index serves one depends on the conditions, and on how many rows meet them. So each is
-- planned for the values it is given: a plan made once for all values reads whole tables for some.

CREATE FUNCTION memory_async.find_sessions(
    in_namespace text, in_session_id text, in_id text, in_first text, in_last text,
    in_user_id text, in_lagging text, before_at bigint, before_id text, in_limit bigint
) RETURNS SETOF memory_async.headers LANGUAGE plpgsql ROWS 100
SET plan_cache_mode = 'force_custom_plan' AS $$
BEGIN
    RETURN QUERY
    SELECT h.* FROM memory_async.headers h
    WHERE h.namespace = in_namespace
      AND (in_session_id IS NULL OR h.session_id = in_session_id)
      AND (in_id IS NULL OR h.session_id = in_id)
      AND (in_first IS NULL OR h.session_id BETWEEN in_first AND in_last)
      AND (in_user_id IS NULL OR h.user_id = in_user_id)
      -- "lagging" is what the partial index holds; the job is looked up only in those.
      AND (in_lagging IS NULL OR h.lagging AND EXISTS (
          SELECT 1 FROM memory_async.jobs j
          WHERE j.session = h.id AND j.job = in_lagging AND j.through < h.last_seq))
      AND (before_at IS NULL OR (h.created_at, h.session_id) < (before_at, before_id))
    ORDER BY h.created_at DESC, h.session_id DESC LIMIT in_limit;
END $$;

CREATE FUNCTION memory_async.find_records(
    in_namespace text, in_kind text, in_partition text, in_id text, in_first text, in_last text,
    in_user_id text, in_status text, in_tags text[],
    before_at bigint, before_id text, before_partition text, in_limit bigint
) RETURNS SETOF memory_async.records LANGUAGE plpgsql ROWS 100
SET plan_cache_mode = 'force_custom_plan' AS $$
DECLARE
    now CONSTANT bigint := memory_async.now_micros();
BEGIN
    RETURN QUERY
    SELECT r.* FROM memory_async.records r
    WHERE r.namespace = in_namespace AND r.kind = in_kind
      AND (in_partition IS NULL OR r.partition = in_partition)
      AND (in_id IS NULL OR r.record_id = in_id)
      AND (in_first IS NULL OR r.record_id BETWEEN in_first AND in_last)
      AND (in_user_id IS NULL OR r.user_id = in_user_id)
      AND (in_status IS NULL OR r.status = in_status)
      AND (in_tags IS NULL OR r.tags @> in_tags)
      AND (r.expires_at IS NULL OR r.expires_at > now)
      AND (before_at IS NULL
           OR (r.created_at, r.record_id, r.partition) < (before_at, before_id, before_partition))
    ORDER BY r.created_at DESC, r.record_id DESC, r.partition DESC LIMIT in_limit;
END $$;
