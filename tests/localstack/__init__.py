"""A round trip with LocalStack, which signs as SNS does: `make test-localstack`."""
