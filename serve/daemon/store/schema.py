"""The catalog's tables; every change to them is a new version with a step from the one before."""

from __future__ import annotations

APPLICATION = 0x6C6C6F73
"""SQLite's ``application_id``: "llos"."""

VERSION = 3
"""SQLite's ``user_version``."""

_VERSION_1 = """
-- Folders inside the data dir are stored relative to it.
CREATE TABLE pools (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE, uri TEXT NOT NULL, created REAL NOT NULL,
    scores TEXT, model_sha256 TEXT,
    scored INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    pool INTEGER NOT NULL REFERENCES pools ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    model_sha256 TEXT NOT NULL, batch_size INTEGER NOT NULL,
    created REAL NOT NULL, started REAL, ended REAL,
    total INTEGER, scored INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '', folder TEXT NOT NULL, resumable INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_of_pool ON jobs (pool);
CREATE UNIQUE INDEX one_job_of_a_pool ON jobs (pool) WHERE state IN ('queued', 'running');

-- An image without a row is free, and so is a pending one after "expires". Freed images keep their
-- row, which proves that the pool has the id.
CREATE TABLE images (
    pool INTEGER NOT NULL REFERENCES pools ON DELETE CASCADE,
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('labeled', 'skipped', 'pending', 'free')),
    label TEXT NOT NULL DEFAULT '', changed REAL NOT NULL,
    expires REAL NOT NULL DEFAULT 0, selection TEXT NOT NULL DEFAULT '',
    score REAL, rank INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (pool, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_state ON images (pool, state, expires);

-- Replies to requests with an Idempotency-Key.
CREATE TABLE answers (
    pool INTEGER NOT NULL REFERENCES pools ON DELETE CASCADE,
    key TEXT NOT NULL, request TEXT NOT NULL, answer BLOB NOT NULL, created REAL NOT NULL,
    PRIMARY KEY (pool, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_by_age ON answers (created);

-- Scores folders to remove as soon as nobody reads them.
CREATE TABLE trash (folder TEXT PRIMARY KEY) STRICT;
"""

_VERSION_2 = """
CREATE INDEX labels_of_pool ON images (pool, label) WHERE state = 'labeled';
"""

_VERSION_3 = """
-- Earlier versions noted the latest time that they saw, and Label Studio's annotations.
DROP TABLE IF EXISTS clock;
DROP TABLE IF EXISTS annotations;
"""

STEPS = {1: _VERSION_1, 2: _VERSION_2, 3: _VERSION_3}
"""Statements that make each version from the one before."""
