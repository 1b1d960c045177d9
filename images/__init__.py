"""The container images: Dockerfiles, and a builder for machines without a registry or a container engine."""
