import os

from relet.backends import build

DatabaseWrapper = build(
    os.environ["RELET_TENANTS_ADAPTER"], base="django_tenants.postgresql_backend"
)
