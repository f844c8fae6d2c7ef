//! stub
pub fn state() -> wpool_protocol::wire::LayerState {
    wpool_protocol::wire::LayerState::Active(String::new())
}
pub fn restrict_job() -> std::io::Result<()> {
    Ok(())
}
