/* A PKCS#11 module that is SoftHSM with one fault, chosen by NOVACRON_TEST_FAULT: what hardware
 * does and software does not. Built by tests/security/modules.py. The table of functions has the
 * order of PKCS #11 2.40, section 4.2 (CK_FUNCTION_LIST); only as much of the interface as is
 * needed is declared here. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long rv_t;

enum { INITIALIZE = 0, GET_TOKEN_INFO = 6, LOGIN = 18, ENCRYPT_INIT = 29, ENCRYPT = 30 };
enum {
    CKR_FUNCTION_FAILED = 0x06,
    CKR_DEVICE_REMOVED = 0x32,
    CKR_MECHANISM_INVALID = 0x70,
    CKR_PIN_EXPIRED = 0xA3,
    CKR_PIN_LOCKED = 0xA4,
    CKF_USER_PIN_FINAL_TRY = 0x20000,
    CKF_USER_PIN_LOCKED = 0x40000,
};

struct functions {
    unsigned char version[2];
    void *function[68];
};

/* CK_TOKEN_INFO up to its flags: label, manufacturer, model, serial number. */
struct token_info {
    unsigned char text[32 + 32 + 16 + 16];
    unsigned long flags;
};

static struct functions *real;
static struct functions ours;

static int fault(const char *name)
{
    const char *wanted = getenv("NOVACRON_TEST_FAULT");
    return wanted != NULL && strcmp(wanted, name) == 0;
}

/* Whether this is the first time in the life of the file NOVACRON_TEST_COUNT; counts all times. */
static int first_time(void)
{
    FILE *file = fopen(getenv("NOVACRON_TEST_COUNT"), "a");
    long size;
    if (file == NULL)
        abort();
    fputc('x', file);
    size = ftell(file);
    fclose(file);
    return size == 1;
}

static void hang(void)
{
    for (;;)
        pause();
}

static rv_t initialize(void *arguments)
{
    if (fault("hang-in-initialize"))
        hang();
    if (fault("initialize-fails"))
        return CKR_FUNCTION_FAILED;
    if (fault("prints")) {
        puts("{\"results\": [\"Vendor Inc. wishes you a nice day\"]}");
        fflush(stdout);
    }
    return ((rv_t (*)(void *))real->function[INITIALIZE])(arguments);
}

static rv_t get_token_info(unsigned long slot, struct token_info *info)
{
    rv_t rv = ((rv_t (*)(unsigned long, void *))real->function[GET_TOKEN_INFO])(slot, info);
    if (fault("pin-final-try"))
        info->flags |= CKF_USER_PIN_FINAL_TRY;
    if (fault("pin-locked"))
        info->flags |= CKF_USER_PIN_LOCKED;
    return rv;
}

static rv_t login(unsigned long session, unsigned long user, unsigned char *pin, unsigned long size)
{
    first_time();
    if (fault("pin-locks-now"))
        return CKR_PIN_LOCKED;
    if (fault("pin-expired"))
        return CKR_PIN_EXPIRED;
    return ((rv_t (*)(unsigned long, unsigned long, unsigned char *,
                      unsigned long))real->function[LOGIN])(session, user, pin, size);
}

static rv_t encrypt_init(unsigned long session, void *mechanism, unsigned long key)
{
    if (fault("no-gcm"))
        return CKR_MECHANISM_INVALID;
    if (fault("hang-in-encrypt"))
        hang();
    if (fault("crash-in-encrypt"))
        abort();
    if (fault("removed") || (fault("removed-once") && first_time()))
        return CKR_DEVICE_REMOVED;
    return ((rv_t (*)(unsigned long, void *, unsigned long))real->function[ENCRYPT_INIT])(
        session, mechanism, key);
}

/* Seals everything wrong: what it says it has sealed nobody opens. */
static rv_t encrypt(unsigned long session, unsigned char *data, unsigned long size,
                    unsigned char *sealed, unsigned long *sealed_size)
{
    rv_t rv = ((rv_t (*)(unsigned long, unsigned char *, unsigned long, unsigned char *,
                         unsigned long *))real->function[ENCRYPT])(session, data, size, sealed,
                                                                   sealed_size);
    if (fault("seals-wrong") && sealed != NULL)
        sealed[0] ^= 1;
    return rv;
}

rv_t C_GetFunctionList(struct functions **list);

rv_t C_GetFunctionList(struct functions **list)
{
    void *library = dlopen(getenv("NOVACRON_TEST_MODULE"), RTLD_NOW);
    rv_t (*get)(struct functions **);
    if (library == NULL)
        return CKR_FUNCTION_FAILED;
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    if (get == NULL || get(&real) != 0)
        return CKR_FUNCTION_FAILED;
    ours = *real;
    ours.function[INITIALIZE] = (void *)initialize;
    ours.function[GET_TOKEN_INFO] = (void *)get_token_info;
    ours.function[LOGIN] = (void *)login;
    ours.function[ENCRYPT_INIT] = (void *)encrypt_init;
    ours.function[ENCRYPT] = (void *)encrypt;
    *list = &ours;
    return 0;
}
