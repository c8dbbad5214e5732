/* Everything that nc_verbs_abi.h and nc_rdma_abi.h declare of the library's, by name.
 * verbs_abi_ours.c makes the table from our declarations and verbs_abi_theirs.c from
 * <infiniband/verbs.h>. */
#ifndef VERBS_ABI_LAYOUT_H
#define VERBS_ABI_LAYOUT_H

#include <stddef.h>

struct abi_entry {
    const char *name;
    size_t offset;
    size_t size;
};

extern const struct abi_entry abi_ours[];
extern const size_t abi_ours_count;
/* Empty where the library's headers are not installed. */
extern const struct abi_entry abi_theirs[];
extern const size_t abi_theirs_count;

/* Objects that we allocate have to be of the library's size; of the others, and of those made
 * larger for what newer libraries write, the fields alone count. */
#define ABI_WHOLE(X)                                                                               \
    X(union ibv_gid)                                                                               \
    X(struct ibv_device_attr)                                                                      \
    X(struct ibv_context_ops)                                                                      \
    X(struct ibv_qp_cap)                                                                           \
    X(struct ibv_qp_init_attr)                                                                     \
    X(struct ibv_global_route)                                                                     \
    X(struct ibv_ah_attr)                                                                          \
    X(struct ibv_qp_attr)                                                                          \
    X(struct ibv_sge)                                                                              \
    X(struct ibv_send_wr)                                                                          \
    X(struct ibv_recv_wr)                                                                          \
    X(struct ibv_wc)                                                                               \
    X(struct ibv_async_event)

#define ABI_FIELDS(X)                                                                              \
    X(struct ibv_device, node_type)                                                                \
    X(struct ibv_device, transport_type)                                                           \
    X(struct ibv_device, name)                                                                     \
    X(struct ibv_device, dev_name)                                                                 \
    X(struct ibv_device, dev_path)                                                                 \
    X(struct ibv_device, ibdev_path)                                                               \
    X(struct ibv_device_attr, fw_ver)                                                              \
    X(struct ibv_device_attr, max_pkeys)                                                           \
    X(struct ibv_device_attr, phys_port_cnt)                                                       \
    X(struct ibv_port_attr, state)                                                                 \
    X(struct ibv_port_attr, active_mtu)                                                            \
    X(struct ibv_port_attr, gid_tbl_len)                                                           \
    X(struct ibv_port_attr, max_msg_sz)                                                            \
    X(struct ibv_port_attr, lid)                                                                   \
    X(struct ibv_port_attr, active_width)                                                          \
    X(struct ibv_port_attr, active_speed)                                                          \
    X(struct ibv_port_attr, link_layer)                                                            \
    X(struct ibv_port_attr, flags)                                                                 \
    X(union ibv_gid, raw)                                                                          \
    X(union ibv_gid, global.subnet_prefix)                                                         \
    X(union ibv_gid, global.interface_id)                                                          \
    X(struct ibv_context, device)                                                                  \
    X(struct ibv_context, ops.poll_cq)                                                             \
    X(struct ibv_context, ops.req_notify_cq)                                                       \
    X(struct ibv_context, ops.post_send)                                                           \
    X(struct ibv_context, ops.post_recv)                                                           \
    X(struct ibv_context, cmd_fd)                                                                  \
    X(struct ibv_context, async_fd)                                                                \
    X(struct ibv_context, num_comp_vectors)                                                        \
    X(struct ibv_pd, context)                                                                      \
    X(struct ibv_pd, handle)                                                                       \
    X(struct ibv_mr, context)                                                                      \
    X(struct ibv_mr, pd)                                                                           \
    X(struct ibv_mr, addr)                                                                         \
    X(struct ibv_mr, length)                                                                       \
    X(struct ibv_mr, lkey)                                                                         \
    X(struct ibv_mr, rkey)                                                                         \
    X(struct ibv_comp_channel, context)                                                            \
    X(struct ibv_comp_channel, fd)                                                                 \
    X(struct ibv_comp_channel, refcnt)                                                             \
    X(struct ibv_cq, context)                                                                      \
    X(struct ibv_cq, channel)                                                                      \
    X(struct ibv_cq, cq_context)                                                                   \
    X(struct ibv_cq, cqe)                                                                          \
    X(struct ibv_qp, context)                                                                      \
    X(struct ibv_qp, pd)                                                                           \
    X(struct ibv_qp, send_cq)                                                                      \
    X(struct ibv_qp, recv_cq)                                                                      \
    X(struct ibv_qp, srq)                                                                          \
    X(struct ibv_qp, qp_num)                                                                       \
    X(struct ibv_qp_cap, max_send_wr)                                                              \
    X(struct ibv_qp_cap, max_recv_wr)                                                              \
    X(struct ibv_qp_cap, max_send_sge)                                                             \
    X(struct ibv_qp_cap, max_recv_sge)                                                             \
    X(struct ibv_qp_cap, max_inline_data)                                                          \
    X(struct ibv_qp_init_attr, send_cq)                                                            \
    X(struct ibv_qp_init_attr, recv_cq)                                                            \
    X(struct ibv_qp_init_attr, cap)                                                                \
    X(struct ibv_qp_init_attr, qp_type)                                                            \
    X(struct ibv_qp_init_attr, sq_sig_all)                                                         \
    X(struct ibv_global_route, dgid)                                                               \
    X(struct ibv_global_route, sgid_index)                                                         \
    X(struct ibv_global_route, hop_limit)                                                          \
    X(struct ibv_ah_attr, grh)                                                                     \
    X(struct ibv_ah_attr, dlid)                                                                    \
    X(struct ibv_ah_attr, is_global)                                                               \
    X(struct ibv_ah_attr, port_num)                                                                \
    X(struct ibv_qp_attr, qp_state)                                                                \
    X(struct ibv_qp_attr, path_mtu)                                                                \
    X(struct ibv_qp_attr, rq_psn)                                                                  \
    X(struct ibv_qp_attr, sq_psn)                                                                  \
    X(struct ibv_qp_attr, dest_qp_num)                                                             \
    X(struct ibv_qp_attr, qp_access_flags)                                                         \
    X(struct ibv_qp_attr, ah_attr)                                                                 \
    X(struct ibv_qp_attr, pkey_index)                                                              \
    X(struct ibv_qp_attr, max_rd_atomic)                                                           \
    X(struct ibv_qp_attr, max_dest_rd_atomic)                                                      \
    X(struct ibv_qp_attr, min_rnr_timer)                                                           \
    X(struct ibv_qp_attr, port_num)                                                                \
    X(struct ibv_qp_attr, timeout)                                                                 \
    X(struct ibv_qp_attr, retry_cnt)                                                               \
    X(struct ibv_qp_attr, rnr_retry)                                                               \
    X(struct ibv_sge, addr)                                                                        \
    X(struct ibv_sge, length)                                                                      \
    X(struct ibv_sge, lkey)                                                                        \
    X(struct ibv_send_wr, wr_id)                                                                   \
    X(struct ibv_send_wr, next)                                                                    \
    X(struct ibv_send_wr, sg_list)                                                                 \
    X(struct ibv_send_wr, num_sge)                                                                 \
    X(struct ibv_send_wr, opcode)                                                                  \
    X(struct ibv_send_wr, send_flags)                                                              \
    X(struct ibv_send_wr, imm_data)                                                                \
    X(struct ibv_send_wr, wr.rdma.remote_addr)                                                     \
    X(struct ibv_send_wr, wr.rdma.rkey)                                                            \
    X(struct ibv_recv_wr, wr_id)                                                                   \
    X(struct ibv_recv_wr, next)                                                                    \
    X(struct ibv_recv_wr, sg_list)                                                                 \
    X(struct ibv_recv_wr, num_sge)                                                                 \
    X(struct ibv_wc, wr_id)                                                                        \
    X(struct ibv_wc, status)                                                                       \
    X(struct ibv_wc, opcode)                                                                       \
    X(struct ibv_wc, vendor_err)                                                                   \
    X(struct ibv_wc, byte_len)                                                                     \
    X(struct ibv_wc, imm_data)                                                                     \
    X(struct ibv_wc, qp_num)                                                                       \
    X(struct ibv_wc, wc_flags)                                                                     \
    X(struct ibv_async_event, element)                                                             \
    X(struct ibv_async_event, event_type)

#define ABI_VALUES(X)                                                                              \
    X(IBV_PORT_ACTIVE)                                                                             \
    X(IBV_TRANSPORT_IB)                                                                            \
    X(IBV_LINK_LAYER_INFINIBAND)                                                                   \
    X(IBV_LINK_LAYER_ETHERNET)                                                                     \
    X(IBV_FORK_DISABLED)                                                                           \
    X(IBV_FORK_ENABLED)                                                                            \
    X(IBV_FORK_UNNEEDED)                                                                           \
    X(IBV_ACCESS_LOCAL_WRITE)                                                                      \
    X(IBV_ACCESS_REMOTE_WRITE)                                                                     \
    X(IBV_QPT_RC)                                                                                  \
    X(IBV_QPS_INIT)                                                                                \
    X(IBV_QPS_RTR)                                                                                 \
    X(IBV_QPS_RTS)                                                                                 \
    X(IBV_QPS_ERR)                                                                                 \
    X(IBV_WR_RDMA_WRITE_WITH_IMM)                                                                  \
    X(IBV_SEND_SIGNALED)                                                                           \
    X(IBV_WC_RDMA_WRITE)                                                                           \
    X(IBV_WC_RECV_RDMA_WITH_IMM)                                                                   \
    X(IBV_WC_WITH_IMM)                                                                             \
    X(IBV_EVENT_DEVICE_FATAL)                                                                      \
    X(IBV_QP_STATE)                                                                                \
    X(IBV_QP_ACCESS_FLAGS)                                                                         \
    X(IBV_QP_PKEY_INDEX)                                                                           \
    X(IBV_QP_PORT)                                                                                 \
    X(IBV_QP_AV)                                                                                   \
    X(IBV_QP_PATH_MTU)                                                                             \
    X(IBV_QP_TIMEOUT)                                                                              \
    X(IBV_QP_RETRY_CNT)                                                                            \
    X(IBV_QP_RNR_RETRY)                                                                            \
    X(IBV_QP_RQ_PSN)                                                                               \
    X(IBV_QP_MAX_QP_RD_ATOMIC)                                                                     \
    X(IBV_QP_MIN_RNR_TIMER)                                                                        \
    X(IBV_QP_SQ_PSN)                                                                               \
    X(IBV_QP_MAX_DEST_RD_ATOMIC)                                                                   \
    X(IBV_QP_DEST_QPN)                                                                             \
    X(IBV_WC_SUCCESS)                                                                              \
    X(IBV_WC_WR_FLUSH_ERR)                                                                         \
    X(IBV_WC_RETRY_EXC_ERR)                                                                        \
    X(IBV_WC_RNR_RETRY_EXC_ERR)                                                                    \
    X(IBV_WC_FATAL_ERR)                                                                            \
    X(IBV_WC_GENERAL_ERR)

#define ABI_WHOLE_ENTRY(type) {#type, 0, sizeof(type)},
#define ABI_FIELD_ENTRY(type, field)                                                               \
    {#type "." #field, offsetof(type, field), sizeof(((type *)0)->field)},
#define ABI_VALUE_ENTRY(name) {#name, (size_t)(name), 0},
#define ABI_ENTRIES                                                                                \
    ABI_WHOLE(ABI_WHOLE_ENTRY) ABI_FIELDS(ABI_FIELD_ENTRY) ABI_VALUES(ABI_VALUE_ENTRY)

#endif
