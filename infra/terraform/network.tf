resource "aws_security_group" "load_balancer" {
  name        = "${var.name}-load-balancer"
  description = "HTTPS from clients and runners"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "registry" {
  name        = "${var.name}-registry"
  description = "Servers, dispatcher and migrations"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "database" {
  name        = "${var.name}-database"
  description = "PostgreSQL from the registry only"
  vpc_id      = var.vpc_id
}

resource "aws_security_group" "runners" {
  name        = "${var.name}-runners"
  description = "Runners: nothing comes in"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "clients" {
  for_each          = toset(var.allowed_cidrs)
  security_group_id = aws_security_group.load_balancer.id
  description       = "Clients and runners"
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "load_balancer_to_registry" {
  security_group_id            = aws_security_group.load_balancer.id
  description                  = "To the servers"
  referenced_security_group_id = aws_security_group.registry.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

resource "aws_vpc_security_group_ingress_rule" "registry_from_load_balancer" {
  security_group_id            = aws_security_group.registry.id
  description                  = "From the load balancer"
  referenced_security_group_id = aws_security_group.load_balancer.id
  ip_protocol                  = "tcp"
  from_port                    = 8080
  to_port                      = 8080
}

resource "aws_vpc_security_group_egress_rule" "registry_https" {
  security_group_id = aws_security_group.registry.id
  description       = "S3, images, logs, secrets"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "registry_to_database" {
  security_group_id            = aws_security_group.registry.id
  description                  = "PostgreSQL"
  referenced_security_group_id = aws_security_group.database.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_ingress_rule" "database_from_registry" {
  security_group_id            = aws_security_group.database.id
  description                  = "Servers, dispatcher and migrations"
  referenced_security_group_id = aws_security_group.registry.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_vpc_security_group_egress_rule" "runners_https" {
  security_group_id = aws_security_group.runners.id
  description       = "The registry, presigned URLs, images, logs, data sets"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}
