-- Full text. What is searched together has a scope: a user's turns, those of a session nobody owns,
-- or the records of a kind in a partition. Every word is indexed with its scope before it, so that
-- nobody's search reads, or counts, what others said.
CREATE TABLE memory_scopes (
    id         INTEGER PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    owner      TEXT    NOT NULL,               -- user/ID, or the partition
    texts      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, kind, owner)
);

CREATE TABLE memory_texts (
    id      INTEGER PRIMARY KEY,
    scope   INTEGER NOT NULL,              -- memory_scopes.id; the triggers see to it
    turn    INTEGER REFERENCES memory_turns ON DELETE CASCADE,
    record  INTEGER REFERENCES memory_records ON DELETE CASCADE,
    part    INTEGER NOT NULL,
    label   TEXT    NOT NULL,
    text    TEXT    NOT NULL,
    words   TEXT    NOT NULL,                  -- what memory_words holds of it: 7_coffe 7_cup
    CHECK ((turn IS NULL) <> (record IS NULL))
);
CREATE UNIQUE INDEX memory_texts_by_turn ON memory_texts (turn, part) WHERE turn IS NOT NULL;
CREATE UNIQUE INDEX memory_texts_by_record ON memory_texts (record, part) WHERE record IS NOT NULL;

CREATE VIRTUAL TABLE memory_words USING fts5 (
    words, content = 'memory_texts', content_rowid = 'id',
    tokenize = "ascii tokenchars '_'", detail = none, columnsize = 0
);

CREATE TRIGGER memory_texts_new AFTER INSERT ON memory_texts BEGIN
    INSERT INTO memory_words (rowid, words) VALUES (new.id, new.words);
    UPDATE memory_scopes SET texts = texts + 1 WHERE id = new.scope;
END;

CREATE TRIGGER memory_texts_gone AFTER DELETE ON memory_texts BEGIN
    INSERT INTO memory_words (memory_words, rowid, words) VALUES ('delete', old.id, old.words);
    UPDATE memory_scopes SET texts = texts - 1 WHERE id = old.scope;
    DELETE FROM memory_scopes WHERE id = old.scope AND texts = 0;
END;

CREATE TRIGGER memory_turns_trimmed AFTER UPDATE OF payload ON memory_turns
WHEN new.payload IS NULL BEGIN
    DELETE FROM memory_texts WHERE turn = new.id;
END;
