-- A dataset.
INSERT INTO blobs (sha256, size, created_at) VALUES (encode(sha256('{"text":"a note"}'), 'hex'), 17, '2026-01-02 03:04:05+00');
INSERT INTO datasets (id, organization_id, name, description, visibility, created_at) VALUES ('00000000-0000-4000-8000-000000000035', '00000000-0000-4000-8000-000000000010', 'notes', 'Notes', 'internal', '2026-01-02 03:04:05+00');
INSERT INTO dataset_versions (id, dataset_id, version, state, digest, manifest, created_by, created_at, published_at) VALUES
  ('00000000-0000-4000-8000-000000000036', '00000000-0000-4000-8000-000000000035', '1.0', 'published', 'sha256:' || encode(sha256('dataset one'), 'hex'), $json${"format":"portllm.dataset/1","files":[{"path":"train.jsonl","size":17,"etag":"e982987ac7864274de3a86f8d2f25c1a18fc7109f43efb0c4ca0618907a4e6d7"}]}$json$, '00000000-0000-4000-8000-000000000001', '2026-01-02 03:04:05+00', '2026-01-02 03:04:05+00');
INSERT INTO files (id, dataset_version_id, path, size, etag) VALUES ('00000000-0000-4000-8000-000000000057', '00000000-0000-4000-8000-000000000036', 'train.jsonl', 17, encode(sha256('{"text":"a note"}'), 'hex'));
INSERT INTO extents (file_id, position, blob, "offset", length) VALUES ('00000000-0000-4000-8000-000000000057', 0, encode(sha256('{"text":"a note"}'), 'hex'), 0, 17);
