struct nc_verbs;

struct nc_verbs_device {
    char name[...];
    char sysfs_path[...];
    uint64_t guid;
    int node_type;
    int transport;
};

struct nc_verbs_port {
    int number;
    int state;
    int link_layer;
    int active_mtu;
    uint64_t speed_bps;
};

int nc_verbs_open(const char *soname, struct nc_verbs **ret_verbs, struct nc_err *err);
void nc_verbs_close(struct nc_verbs *verbs);
size_t nc_verbs_count(const struct nc_verbs *verbs);
int nc_verbs_device(const struct nc_verbs *verbs, size_t index, struct nc_verbs_device *ret_device,
                    struct nc_err *err);
int nc_verbs_ports(const struct nc_verbs *verbs, size_t index, struct nc_verbs_port *ret_ports,
                   size_t capacity, size_t *ret_count, struct nc_err *err);
uint64_t nc_verbs_speed_bps(int width_code, int speed_code);
