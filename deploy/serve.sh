# What `docker run` starts of a model server's image, as TensorFlow Serving's own does: a model that variables name.
# Later flags win, so that "$@" may say otherwise.
exec python -P -m cortex.model_server --port=8500 --rest_api_port=8501 \
  --grpc_socket_path=/run/cortex/model-server-0.sock \
  --model_name="$MODEL_NAME" --model_base_path="$MODEL_BASE_PATH/$MODEL_NAME" "$@"
