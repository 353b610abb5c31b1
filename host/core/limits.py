"""Every bound of the host, in one place. The unit is the last word of a name; `_max` bounds are inclusive."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the host accepts at most. A skill's manifest may ask for less, never for more."""

    # One wasm call.
    fuel_max: int = 20_000_000_000
    deadline_ms_max: int = 60_000
    memory_bytes_max: int = 64 << 20
    table_elements_max: int = 10_000
    reply_bytes_max: int = 4 << 20
    request_bytes_max: int = 4 << 20
    log_bytes_max: int = 64 << 10
    log_line_bytes_max: int = 1024
    host_calls_max: int = 100_000
    host_call_fuel: int = 1_000
    wasm_stack_bytes_max: int = 512 << 10
    driver_reply_bytes_max: int = 4096
    backtrace_frames_max: int = 16

    # One process.
    instances_max: int = 32
    epoch_tick_ms: int = 10

    # Bundles and compilation.
    bundle_bytes_max: int = 48 << 20
    module_bytes_max: int = 16 << 20  # of it for a core module; the rest is for components, which bring their interpreter along
    manifest_bytes_max: int = 64 << 10
    signatures_max: int = 8
    sections_max: int = 256
    compile_memory_bytes_max: int = 1 << 30
    compile_cpu_s_max: int = 20
    compile_wall_s_max: int = 60
    compiled_bytes_max: int = 256 << 20

    # Components: the slow tier. A component is many core modules; what it compiles with on a small node takes minutes.
    component_sections_max: int = 4096
    component_instances_max: int = 16
    component_nested_max: int = 8  # instances of components inside a component
    component_core_instances_max: int = 64
    component_core_instances_declared_max: int = 512
    component_declared_max: int = 16_384  # instances, aliases, types and the like of a component and of those inside it
    component_core_declared_max: int = 32_768  # imports, functions and globals of one core module, up to 32 bytes of each instance for each
    component_externs_max: int = 128  # imports, exports, and functions of one interface
    component_memories_max: int = 2  # `memory_bytes` holds for each of them
    component_tables_max: int = 64
    component_table_elements_max: int = 100_000
    component_stack_bytes_max: int = 1 << 20
    component_random_bytes_max: int = 64 << 10
    component_compile_memory_bytes_max: int = 4 << 30
    component_compile_cpu_s_max: int = 600
    user_cache_bytes_max: int = 1 << 30  # of compiled code that the SDK keeps
    component_compile_wall_s_max: int = 900

    # Skill state and drivers.
    state_value_bytes_max: int = 64 << 10
    state_key_bytes_max: int = 256
    state_bytes_max: int = 1 << 20
    chunk_bytes_max: int = 1 << 20
    program_bytes_max: int = 1 << 30
    program_tail_bytes: int = 64 << 10
    moves_per_command_max: int = 256

    # CBOR from outside.
    cbor_depth_max: int = 16
    cbor_items_max: int = 65_536

    # Identity.
    chain_length_max: int = 4
    clock_skew_s_max: int = 300
    certificate_bytes_max: int = 4096

    # Supply.
    frame_bytes_max: int = 256 << 10
    announcements_max: int = 256
    versions_kept: int = 3
    fetch_attempts_max: int = 5
    fetch_idle_s_max: int = 30
    partials_bytes_max: int = 64 << 20
    relay_fetches_max: int = 32
    relay_transfers_max: int = 256
    relay_waiting_max: int = 1024
    nodes_connected_max: int = 5_000
    policy_bytes_max: int = 4096
    policies_max: int = 256

    # Trust metadata (TUF).
    trust_root_bytes_max: int = 256 << 10
    trust_timestamp_bytes_max: int = 16 << 10
    trust_snapshot_bytes_max: int = 64 << 10
    trust_targets_bytes_max: int = 5 << 20
    trust_total_bytes_max: int = 32 << 20
    trust_total_s_max: int = 900
    trust_root_rotations_max: int = 256
    trust_delegations_max: int = 8
    trust_pending_bytes_max: int = 16 << 20

    # Roll-outs.
    inventory_nodes_max: int = 100_000
    rollouts_active_max: int = 64
    rollouts_kept_max: int = 256
    rollout_watchers_max: int = 64
    rollout_events_waiting_max: int = 200_000
    action_age_s_max: int = 600
    releases_cached_max: int = 1_024

    # The registry.
    oci_manifest_bytes_max: int = 4 << 20
    oci_blob_bytes_max: int = 1 << 30
    oci_descriptors_max: int = 1_024
    oci_repositories_max: int = 10_000
    oci_page_max: int = 1_000
    oci_redirects_max: int = 3
    oci_answer_bytes_max: int = 64 << 10
    oci_pull_s_max: int = 2 * 86_400  # 16 MiB over 1 kbit/s take 37 hours
    uploads_open_max: int = 256
    upload_idle_s_max: int = 30
    upload_total_s_max: int = 3_600
    upload_age_s_max: int = 86_400
    tokens_max: int = 1_000
    layout_files_max: int = 100_000
    layout_manifests_bytes_max: int = 64 << 20

    # The mesh: messages and links.
    children_max: int = 1024
    links_pending_max: int = 2048
    handshake_ms_max: int = 10_000
    connects_per_minute_max: int = 30
    frames_per_s_max: int = 200
    strikes_max: int = 8
    payload_bytes_max: int = 64 << 10
    reply_payload_bytes_max: int = 16 << 10
    replies_bytes_max: int = 128 << 10
    targets_max: int = 1024
    names_per_frame_max: int = 1024
    stragglers_max: int = 64
    outbox_frames_max: int = 256
    outbox_bytes_max: int = 2 << 20
    inbox_messages_max: int = 256
    gatherings_max: int = 256
    ids_remembered_max: int = 4096
    sources_known_max: int = 256
    sequence_window: int = 1024
    ttl_ms_max: int = 7 * 86_400_000
    early_ms_max: int = 5_000
    retransmits_max: int = 3

    # A machine on a serial line.
    machine_line_bytes_max: int = 256
    machine_lines_waiting_max: int = 65_536
    machine_garbled_max: int = 64
    machine_strays_max: int = 8

    # Who watches a node at its control socket.
    watchers_max: int = 8
    watched_calls_max: int = 1_024
    watched_bytes_max: int = 16 << 20
    watched_value_bytes_max: int = 16 << 10

    # Audit.
    observed_bytes_max: int = 256 << 10
    call_record_bytes_max: int = 1 << 20
    calls_file_bytes_max: int = 128 << 20
    calls_kept_max: int = 10_000
    calls_waiting_max: int = 256
    calls_waiting_bytes_max: int = 8 << 20
    conflicts_kept_max: int = 1_000
    audit_rows_max: int = 100_000
    refusals_before_safe_mode: int = 100


DEFAULT = Limits()
