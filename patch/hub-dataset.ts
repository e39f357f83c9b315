const HUB_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*\/[A-Za-z0-9][A-Za-z0-9_.-]*$/

/**
 * Why `path` may not be a dataset of something that a stranger sends, or null where it may: a name with an owner is the
 * Hub's, where anything else could be a builder of the datasets library that reads the runner's own files.
 */
export function datasetProblem(path: unknown): string | null {
  return typeof path === 'string' && HUB_NAME.test(path) ? null : `${JSON.stringify(path)} is not a dataset of the Hub with its owner, such as allenai/winogrande. For data of your organization, leave it out and name the data.`
}
