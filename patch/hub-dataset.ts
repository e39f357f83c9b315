/** Builders of the datasets library that read whatever path they are given. */
const FILE_BUILDERS: ReadonlySet<string> = new Set([
  'json', 'csv', 'text', 'parquet', 'arrow', 'xml', 'pandas', 'sql', 'generator', 'spark', 'cache', 'webdataset', 'imagefolder', 'audiofolder', 'videofolder', 'pdffolder', 'niftifolder', 'hdf5', 'lance', 'eval',
])
const HUB_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*(\/[A-Za-z0-9][A-Za-z0-9_.-]*)?$/

/** Why `path` may not be a dataset of something that a stranger sends: whoever runs it must read no file of its own. Null where it may. */
export function datasetProblem(path: unknown): string | null {
  if (typeof path !== 'string' || !HUB_NAME.test(path)) return `${JSON.stringify(path)} is not a name of the Hub, such as super_glue or allenai/winogrande.`
  return FILE_BUILDERS.has(path) ? `${path} would read files of the runner. Name a dataset of the Hub, or ask for data of your organization.` : null
}
