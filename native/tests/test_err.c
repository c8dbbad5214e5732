#include "nc_err.h"

#include "check.h"

static void every_code_has_a_name_and_a_text(void)
{
    CHECK(nc_err_count() == NC_ERR_MAX);
    for (int code = 0; code < nc_err_count(); code++) {
        CHECK(strlen(nc_err_name(code)) > 0);
        CHECK(strlen(nc_err_text(code)) > 0);
    }
    CHECK_TEXT(nc_err_name(NC_ERR_OK), "OK");
    CHECK_TEXT(nc_err_name(NC_ERR_SYSTEM), "SYSTEM");
    CHECK(nc_abi() == NC_ABI);
}

static void a_number_outside_of_the_table_is_named_too(void)
{
    CHECK_TEXT(nc_err_name(-1), "UNKNOWN");
    CHECK_TEXT(nc_err_name(NC_ERR_MAX), "UNKNOWN");
    CHECK(strlen(nc_err_text(NC_ERR_MAX)) > 0);
}

static void setting_returns_the_code_and_fills_the_rest(void)
{
    struct nc_err err = {0};

    CHECK(nc_err_set(&err, NC_ERR_DENIED, 13, "cannot open %s", "it") == NC_ERR_DENIED);
    CHECK(err.code == NC_ERR_DENIED);
    CHECK(err.os_errno == 13);
    CHECK_TEXT(err.reason, "cannot open it");
    CHECK(nc_err_set(NULL, NC_ERR_LIMIT, 0, "nobody asks") == NC_ERR_LIMIT);
}

static void too_long_a_reason_is_cut_inside_its_buffer(void)
{
    struct nc_err err = {0};
    char reason[4 * NC_ERR_REASON_BYTES];

    memset(reason, 'x', sizeof reason - 1);
    reason[sizeof reason - 1] = '\0';
    CHECK(nc_err_set(&err, NC_ERR_SYSTEM, 0, "%s", reason) == NC_ERR_SYSTEM);
    CHECK(strlen(err.reason) == NC_ERR_REASON_BYTES - 1);
}

int main(void)
{
    every_code_has_a_name_and_a_text();
    a_number_outside_of_the_table_is_named_too();
    setting_returns_the_code_and_fills_the_rest();
    too_long_a_reason_is_cut_inside_its_buffer();
    return CHECK_RESULT;
}
