struct nc_err {
    int code;
    int os_errno;
    char reason[...];
};

int nc_abi(void);
int nc_err_count(void);
const char *nc_err_name(int code);
const char *nc_err_text(int code);
