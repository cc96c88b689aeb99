"""``python -m relet.backends.demo.project.prepare``: creates the tables and the products."""

from __future__ import annotations

import django
from django.core.management import call_command


def main() -> None:
    """Create the tables and the products."""
    django.setup()
    # Models can be imported only now.
    from .models import PRODUCTS, Product

    call_command("migrate", run_syncdb=True, verbosity=0)
    Product.objects.bulk_create(
        Product(pk=number, name=f"Product {number}", price=number % 90 + 10)
        for number in range(1, PRODUCTS + 1)
    )


if __name__ == "__main__":
    main()
