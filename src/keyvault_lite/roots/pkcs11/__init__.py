"""An HSM, smart card or other token with a PKCS#11 module. The module is loaded in a process of its own alone."""
