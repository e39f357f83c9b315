import type { Sql } from 'postgres'

/** Of each family; a hundred families to an organization. */
const VERSIONS = 10
/** Families of one statement. */
const BATCH = 10_000

/**
 * Fills a registry up to `total` patch versions, with their families, organizations, files and extents, as publishing
 * would; their manifests are a few lines, since nobody resolves them. Returns the seconds that it took.
 */
export async function growRegistry(sql: Sql, total: number): Promise<number> {
  const start = performance.now()
  await sql`insert into blobs (sha256, size) values (repeat('0', 64), 1024) on conflict do nothing`
  const [{ there }] = (await sql`select count(*)::int as there from patch_versions`) as unknown as [{ there: number }]
  for (let left = Math.floor((total - there) / VERSIONS); left > 0; left -= BATCH) await addFamilies(sql, Math.min(left, BATCH))
  // What autovacuum would come to do.
  await sql`vacuum analyze`
  return (performance.now() - start) / 1000
}

async function addFamilies(sql: Sql, count: number): Promise<void> {
  await sql.begin(async (tx) => {
    await tx`
      create temporary table grown on commit drop as
      select gen_random_uuid() as organization, array(select gen_random_uuid() from generate_series(1, 100) where g = g) as families, g
      from generate_series(1, ${Math.ceil(count / 100)}::int) g`
    await tx`insert into organizations (id, name) select organization, 'grown-' || organization from grown`
    await tx`
      insert into patches (id, organization_id, name)
      select family, organization, 'patch-' || place from grown, unnest(families) with ordinality as of (family, place)
      limit ${count}`
    await tx`
      create temporary table versions on commit drop as
      select gen_random_uuid() as id, patches.id as patch_id, patches.organization_id, v
      from patches join grown on grown.organization = patches.organization_id, generate_series(1, ${VERSIONS}::int) v`
    await tx`
      insert into patch_versions (id, patch_id, version, state, digest, manifest, base_version_id, created_by, published_at)
      select versions.id, patch_id, '1.' || v || '.0', 'published', 'sha256:' || md5(versions.id::text) || md5(patch_id::text), '{"format": "portllm.patch/1"}', base.id, base.created_by, now()
      from versions, (select model_versions.id, created_by from model_versions where version = '1.0') base`
    await tx`
      create temporary table made_files on commit drop as
      select gen_random_uuid() as id, versions.id as version_id, path from versions, unnest(array['adapter_config.json', 'adapter_model.safetensors']) path`
    await tx`insert into files (id, patch_version_id, path, size, etag) select id, version_id, path, 1024, md5(id::text) from made_files`
    await tx`insert into extents (file_id, position, blob, "offset", length) select id, 0, repeat('0', 64), 0, 1024 from made_files`
    await tx`insert into dist_tags (patch_id, tag, patch_version_id) select patch_id, 'latest', id from versions where v = ${VERSIONS}`
  })
}

/** A family whose every version is a copy of another patch's only one: for ranges that have much to choose from. */
export async function addManyVersions(sql: Sql, { name, like, count }: { name: string; like: string; count: number }): Promise<void> {
  await sql`insert into patches (organization_id, name) select organization_id, ${name} from patches where name = ${like}`
  await sql`
    insert into patch_versions (patch_id, version, state, digest, manifest, base_version_id, created_by, published_at)
    select family.id, '1.' || v || '.0', 'published', digest, manifest, base_version_id, created_by, published_at
    from patch_versions join patches on patches.id = patch_id, (select id from patches where name = ${name}) family, generate_series(1, ${count}::int) v
    where patches.name = ${like}`
}
