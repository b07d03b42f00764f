"""The tables of the dialect: every path there is, by method."""

from typing import Final

from keyvault_lite.wire.vault import cipher, keys, signing, system
from keyvault_lite.wire.vault.route import DELETE, LIST, READ, WRITE, Table

TRANSIT: Final = Table(
    {
        (LIST, "keys"): keys.LIST_KEYS,
        (WRITE, "keys/:name"): keys.CREATE,
        (READ, "keys/:name"): keys.READ_KEY,
        (DELETE, "keys/:name"): keys.DELETE_KEY,
        (WRITE, "keys/:name/config"): keys.CONFIGURE,
        (WRITE, "keys/:name/rotate"): keys.ROTATE,
        (WRITE, "keys/:name/trim"): keys.TRIM,
        (DELETE, "keys/:name/soft-delete"): keys.SOFT_DELETE,
        (WRITE, "keys/:name/soft-delete-restore"): keys.RESTORE,
        (WRITE, "encrypt/:name"): cipher.ENCRYPT,
        (WRITE, "decrypt/:name"): cipher.DECRYPT,
        (WRITE, "rewrap/:name"): cipher.REWRAP,
        (WRITE, "datakey/:kind/:name"): cipher.DATA_KEY,
        (WRITE, "sign/:name"): signing.SIGN,
        (WRITE, "sign/:name/:algorithm"): signing.SIGN,
        (WRITE, "verify/:name"): signing.VERIFY,
        (WRITE, "verify/:name/:algorithm"): signing.VERIFY,
        (WRITE, "hmac/:name"): signing.HMAC,
        (WRITE, "hmac/:name/:algorithm"): signing.HMAC,
        (WRITE, "hash"): signing.HASH,
        (WRITE, "hash/:algorithm"): signing.HASH,
        (WRITE, "random"): signing.RANDOM,
        (WRITE, "random/:source"): signing.RANDOM,
        (WRITE, "random/:source/:bytes"): signing.RANDOM,
        (READ, "export/:kind/:name"): keys.EXPORT,
        (READ, "export/:kind/:name/:version"): keys.EXPORT,
        (READ, "backup/:name"): keys.BACKUP,
        (READ, "config/keys"): keys.READ_UPSERT,
        (WRITE, "config/keys"): keys.SET_UPSERT,
    }
)
SYSTEM: Final = Table(
    {
        (READ, "sys/mounts"): system.MOUNTS,
        (WRITE, "sys/mounts/*path"): system.ENABLE,
        (DELETE, "sys/mounts/*path"): system.DISABLE,
        (READ, "sys/mounts/*path"): system.READ_MOUNT,
        (READ, "sys/internal/ui/mounts"): system.UI_MOUNTS,
        (READ, "sys/internal/ui/mounts/*path"): system.UI_MOUNT,
    }
)
