/** What Python, its libraries, the network and the devices are set up with. */
const NAMES: ReadonlySet<string> = new Set([
  'PATH', 'HOME', 'USER', 'LOGNAME', 'TMPDIR', 'LANG', 'TZ', 'LD_LIBRARY_PATH', 'XDG_CACHE_HOME',
  'HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'NO_PROXY', 'http_proxy', 'https_proxy', 'all_proxy', 'no_proxy', 'SSL_CERT_FILE', 'SSL_CERT_DIR', 'REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE',
])
const PREFIXES = ['LC_', 'HF_', 'CUDA_', 'NVIDIA_', 'NCCL_', 'HIP_', 'ROCR_', 'TORCH_', 'PYTORCH_', 'OMP_', 'KMP_', 'GOMP_', 'MKL_', 'OPENBLAS_']

/**
 * Of an environment what Python needs. It runs models and data that strangers have made, so it gets nothing else: no token
 * of a registry, no key of a bucket. `HF_TOKEN` is among it, for data and models of the Hub that are gated.
 */
export function pythonVariables(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => NAMES.has(name) || PREFIXES.some((prefix) => name.startsWith(prefix))))
}
