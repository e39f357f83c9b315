-- A blob that nothing refers to any more, since just now.
INSERT INTO blobs (sha256, size, created_at, released_at) VALUES (encode(sha256('let go of'), 'hex'), 9, '2026-01-02 03:04:05+00', now());
