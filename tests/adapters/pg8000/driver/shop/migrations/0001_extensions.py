from django.contrib.postgres import operations
from django.db import migrations


class Migration(migrations.Migration):
    operations = (
        operations.BtreeGistExtension(),
        operations.CITextExtension(),
        operations.HStoreExtension(),
        operations.TrigramExtension(),
        operations.UnaccentExtension(),
    )
