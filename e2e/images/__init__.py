"""Images for the local cluster without a registry, a build daemon or a download: written as OCI tars, in seconds."""
