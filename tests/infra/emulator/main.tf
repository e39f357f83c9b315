# infra/terraform in a network of its own, against an emulator of AWS (tests/infra/apply-terraform.ts).
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

# Where the emulator is: AWS_ENDPOINT_URL.
provider "aws" {
  region                      = "eu-central-1"
  access_key                  = "emulated"
  secret_key                  = "emulated"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = "true"
  skip_requesting_account_id  = false
}

resource "aws_vpc" "network" {
  cidr_block = "10.0.0.0/16"
}

resource "aws_subnet" "network" {
  for_each          = { a = 0, b = 1 }
  vpc_id            = aws_vpc.network.id
  cidr_block        = cidrsubnet(aws_vpc.network.cidr_block, 8, each.value)
  availability_zone = "eu-central-1${each.key}"
}

resource "aws_acm_certificate" "registry" {
  domain_name       = "models.example"
  validation_method = "DNS"
}

module "portllm" {
  source              = "../../../infra/terraform"
  bucket_name         = "portllm-blobs-emulated"
  vpc_id              = aws_vpc.network.id
  private_subnet_ids  = [for subnet in aws_subnet.network : subnet.id]
  public_subnet_ids   = [for subnet in aws_subnet.network : subnet.id]
  public_url          = "https://models.example"
  certificate_arn     = aws_acm_certificate.registry.arn
  server_image        = "registry.example/portllm/server:0.1.0"
  runner_image        = "registry.example/portllm/runner:0.1.0-gpu"
  deletion_protection = false
}

output "bucket" {
  value = module.portllm.bucket
}
